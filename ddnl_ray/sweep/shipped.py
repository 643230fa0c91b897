"""The sweep files that come with the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ddnl_ray.errors import RequestError
from ddnl_ray.sweep.plan import count_cells
from ddnl_ray.sweep.read import read_sweep

BESIDE = Path(__file__).resolve().parents[2] / "sweeps"


def sweeps_folder() -> Path:
    """Return the folder of the sweep files: beside the package, or in the current folder.

    Raises:
        RequestError: There is neither.
    """
    for folder in (BESIDE, Path("sweeps")):
        if any(folder.glob("*.yaml")):
            return folder
    raise RequestError(
        f"there are no sweep files at {BESIDE} or {Path('sweeps').resolve()}: they are in the folder sweeps/ of the "
        "repository, and not installed with the package; run the command where that folder is"
    )


def shipped_sweeps(folder: Path) -> list[dict[str, Any]]:
    """Return file, name, a line about it, number of cells and profiles of every sweep file of a folder."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        sweep = read_sweep(path)
        profiles = (yaml.safe_load(path.read_text()) or {}).get("profiles") or {}
        found.append(
            {
                "file": path.name,
                "name": sweep.name,
                "about": first_sentence(path.read_text()),
                "cells": count_cells(sweep),
                "profiles": list(profiles),
            }
        )
    return found


def first_sentence(text: str) -> str:
    """Return the first sentence of the comment with which a file starts."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    words = " ".join(lines).split()
    for index, word in enumerate(words):
        last = index + 1 == len(words)
        if word.endswith(".") and (last or words[index + 1][:1].isupper()):
            return " ".join(words[: index + 1])
    return " ".join(words)
