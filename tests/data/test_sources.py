from __future__ import annotations

from pathlib import Path

import pytest

from ddnl_ray.data import load, sources
from ddnl_ray.errors import DataError, RequestError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "cifar11",
            r"unknown data set 'cifar11': did you mean 'cifar10'\? Known: cifar10, cifar100, digits",
        ),
        ("flder:x", "unknown data set 'flder:x': did you mean 'folder:PATH'"),
        ("folder", "unknown data set 'folder': did you mean 'folder:PATH'"),
        ("folder:", "'folder:' names no path; write folder:PATH"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load(name)


def test_size_is_refused_where_it_would_be_ignored() -> None:
    with pytest.raises(RequestError, match=r"data\.size=16 resizes folder: and parquet: images only; digits has"):
        load("digits", size=16)
    with pytest.raises(RequestError, match=r"data\.size must be at least 1, but got 0"):
        load("folder:x", size=0)


def test_labels_without_truth_leave_it_unknown(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label\n" + "".join(f"{row % 10}\n" for row in range(1437)))
    dataset = load("digits", labels=labels)
    assert dataset.train_labels[:12].tolist() == [*range(10), 0, 1]
    assert dataset.clean_labels is None
    assert dataset.fingerprint != load("digits").fingerprint
    labels.write_text("label\n0\n")
    with pytest.raises(DataError, match="must have one row per training image, 1437, but column 'label' has 1"):
        load("digits", labels=labels)


def test_the_default_root_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / "data" / "cifar10")):
        load("cifar10")
    with pytest.raises(DataError, match=f"no folder at {tmp_path / 'mine'}"):
        load("folder:~/mine")


def test_every_benchmark_is_listed() -> None:
    assert set(sources.BENCHMARKS) == {"digits", "cifar10", "cifar100", "tinyimagenet"}
