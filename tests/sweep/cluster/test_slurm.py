"""The Slurm script and the Dockerfile: what they start is as safe as a cluster file, and ends when it should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from ddnl_ray.sweep.cluster.commands import ray_starts
from ddnl_ray.sweep.cluster.starting import check_start

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "cluster" / "slurm.sh"

TOOL = """#!/bin/bash
name=$(basename "$0")
echo "$name $*" >> "$CALLS"
case "$name" in
  srun) while [[ $1 == --* ]]; do shift; done; exec "$@" ;;
  scontrol) [[ $1 == show ]] && printf '%s\\n' localhost second third; exit 0 ;;
  ray) stat -c 'mode %a' "$RAY_AUTH_TOKEN_PATH" >> "$CALLS"; exec sleep 60 ;;
  python)
    [[ $1 == - ]] || exec python3 "$@"
    until (( $(grep -c '^mode' "$CALLS") >= $3 )); do sleep 0.05; done
    exit "${UP:-0}" ;;
  ddnl) echo "$RAY_AUTH_MODE $RAY_USAGE_STATS_ENABLED" >> "$CALLS"; sleep "${LAST:-0}"; exit "${ENDS:-0}" ;;
esac
"""


@dataclass(frozen=True)
class Job:
    """A run of the script beside stand-ins for Slurm, Ray and ddnl."""

    process: subprocess.Popen[str]
    calls: Path
    home: Path

    def said(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def wait_for(self, start: str) -> None:
        end = time.monotonic() + 30
        while not any(line.startswith(start) for line in self.said()):
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)


def start(folder: Path, **environment: str) -> Job:
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "tool").write_text(TOOL)
    (tools / "tool").chmod(0o755)
    for name in ("srun", "scontrol", "ray", "python", "ddnl"):
        (tools / name).symlink_to("tool")
    home = folder / "home"
    home.mkdir()
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_CPUS_PER_TASK": "2"}
    process = subprocess.Popen(
        ["bash", str(SCRIPT), "sweeps/quickstart.yaml", "--out", "/shared/my runs"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "SLURM_SUBMIT_DIR": str(folder),
            "DDNL_SCRATCH": str(folder / "scratch"),
            "CALLS": str(folder / "calls"),
            **slurm,
            **environment,
        },
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return Job(process, folder / "calls", home)


@pytest.mark.parametrize("ends", [0, 1])
def test_a_job_starts_every_node_and_ends_as_the_sweep_ends(tmp_path: Path, ends: int) -> None:
    job = start(tmp_path, ENDS=str(ends))
    assert job.process.wait(timeout=30) == ends
    starts = [line for line in job.said() if line.startswith("ray start")]
    assert len([line for line in starts if "--head" in line]) == 1
    assert len([line for line in starts if "--address=127.0.0.1:20711" in line]) == 2
    assert "ddnl sweep sweeps/quickstart.yaml --out /shared/my runs --address 127.0.0.1:20711" in job.said()
    assert "token 0" in job.said()
    assert {line for line in job.said() if line.startswith("mode")} == {"mode 600"}
    assert [line for line in job.said() if line.startswith("python - ")] == [
        "python - 127.0.0.1:20711 1",
        "python - 127.0.0.1:20711 3",
    ]
    assert list(job.home.iterdir()) == []


def test_a_job_whose_time_is_over_goes_back_into_the_queue(tmp_path: Path) -> None:
    job = start(tmp_path, LAST="60")
    job.wait_for("ddnl sweep")
    job.process.terminate()
    assert job.process.wait(timeout=30) == 143
    assert "scontrol requeue 4711" in job.said()
    assert list(job.home.iterdir()) == []


def test_a_job_whose_nodes_do_not_come_ends_without_a_sweep(tmp_path: Path) -> None:
    job = start(tmp_path, UP="1")
    assert job.process.wait(timeout=30) == 1
    assert not any(line.startswith("ddnl") for line in job.said())
    assert list(job.home.iterdir()) == []


def test_the_token_is_not_in_a_command(tmp_path: Path) -> None:
    job = start(tmp_path, LAST="60")
    job.wait_for("ddnl sweep")
    (token,) = [path.read_text().strip() for path in job.home.glob(".ddnl-slurm-4711/token")]
    job.process.terminate()
    job.process.wait(timeout=30)
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert not any(token in line for line in job.said())


def test_the_script_is_valid() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(SCRIPT)], check=True)


def test_what_the_script_starts_is_as_safe_as_a_cluster_file() -> None:
    starts = list(ray_starts("slurm.sh", SCRIPT.read_text()))
    assert [start.is_head for start in starts] == [True, False]
    assert [finding for start in starts for finding in check_start(start)] == []
    assert all("--temp-dir" in start.options for start in starts)


def test_a_script_without_a_token_is_found() -> None:
    text = SCRIPT.read_text().replace("RAY_AUTH_MODE=token ", "")
    assert {finding.rule for start in ray_starts("slurm.sh", text) for finding in check_start(start)} == {"token-mode"}


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "cluster" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_image_is_pinned_has_one_ray_and_no_root_and_no_secret() -> None:
    found = instructions()
    assert found[0][0] == "FROM"
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", found[0][1])
    assert {name for name, _ in found} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}
    assert [value for name, value in found if name == "USER"] == ["ray"]
    assert [name for name, _ in found].index("USER") > max(i for i, (name, _) in enumerate(found) if name == "RUN")
    assert f"ray[default,tune]=={version('ray')}" in str(found)
    (environment,) = [value for name, value in found if name == "ENV"]
    assert set(environment.split()) == {
        "RAY_AUTH_MODE=token",
        "RAY_USAGE_STATS_ENABLED=0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1",
    }


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    copied = [
        word
        for name, value in instructions()
        if name == "COPY"
        for word in value.split()[:-1]
        if not word.startswith("--")
    ]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert set(copied) == allowed
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("name", ["cluster.yaml", "gcp.yaml", "onpremises.yaml"])
def test_what_a_cluster_file_copies_exists(name: str) -> None:
    mounts = yaml.safe_load((ROOT / "cluster" / name).read_text())["file_mounts"]
    local = [path for path in mounts.values() if not path.startswith("~")]
    assert all((ROOT / path).exists() for path in local)
    assert {"pyproject.toml", "README.md", "ddnl_ray", "analysis", "sweeps"} == set(local)
