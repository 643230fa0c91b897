"""``information.json``: a round trip, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from analysis.measure.record import Measurement, Value, read_information, write_information
from analysis.theory.estimate import Estimate
from ddnl_ray.errors import CorruptFileError

FOUND = Measurement(
    made_from={"data": "abc", "sets": {"datm": {"ipc": 1}}},
    data={"dataset": "digits", "train_images": 400, "classes": 10},
    reference={"network": "convnet1", "epochs": 3, "accuracy": 0.9, "samples": 100},
    values=(
        Value("i_min", "few_shot", "datm", Estimate(1.5, 1.25, 2.0, "nats", 5, {"ipc": 1, "noise": "no noise"})),
        Value("i_clean", "teacher", None, None, "Undefined here."),
    ),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_information(tmp_path) is None
    write_information(tmp_path, FOUND)
    assert read_information(tmp_path) == FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["information.json"]


def test_the_key_is_that_of_what_it_was_made_from() -> None:
    other = dataclasses.replace(FOUND, made_from={**FOUND.made_from, "data": "abd"})
    assert other.key != FOUND.key
    assert dataclasses.replace(FOUND, values=()).key == FOUND.key


def test_values_are_found_by_method(tmp_path: Path) -> None:
    assert FOUND.value("i_min", "few_shot", "datm") == FOUND.values[0]
    assert FOUND.value("i_min", "few_shot", "mtt") is None
    assert FOUND.value("i_clean", "teacher", "datm") == FOUND.values[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "is not of format 1"),
        ({"made_from": {}}, "its key is not that of what it was made from"),
        ({"values": [{"quantity": "i_min"}]}, "is damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_information(tmp_path, FOUND)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptFileError, match=message):
        read_information(tmp_path)
    path.write_text("[]")
    with pytest.raises(CorruptFileError, match="format"):
        read_information(tmp_path)
