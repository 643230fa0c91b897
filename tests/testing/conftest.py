"""Contracts that a pytest of its own runs, and what it found."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

BROKEN = Path(__file__).with_name("broken.py")
README = Path(__file__).parents[2] / "README.md"


@dataclass
class Verdict:
    """What a contract found: tests that passed, and the message of each that failed."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """The verdicts of broken.py's classes and of the README's, from a pytest of a user elsewhere."""
    folder = tmp_path_factory.mktemp("elsewhere")
    section = README.read_text().split("## Your own method")[1]
    (folder / "test_means.py").write_text(section.split("```python\n")[1].split("```")[0])
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    options = ["-q", "-p", "no:cacheprovider", "-c", "pytest.ini", "--junitxml=report.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(BROKEN), "test_means.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return read(folder / "report.xml")


def read(report: Path) -> dict[str, Verdict]:
    """Read a report in JUnit's format."""
    verdicts: dict[str, Verdict] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        verdict = verdicts.setdefault(case.attrib["classname"].split(".")[-1], Verdict())
        faults = [*case.iter("failure"), *case.iter("error")]
        name = case.attrib["name"].split("[")[0]
        if faults:
            verdict.failed[name] = faults[0].attrib["message"]
        elif case.find("skipped") is None:
            verdict.passed.append(name)
    return verdicts
