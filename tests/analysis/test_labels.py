from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.labels import read_labels, shown_labels
from ddnl_ray.card import _write_preview
from ddnl_ray.files import write_json, write_tensors


def test_places_are_those_of_the_preview(tmp_path: Path) -> None:
    """Image i is grey of level i, so the pixel in the middle of a place says which image the preview shows there."""
    classes, ipc, size = 12, 3, 5
    order = torch.randperm(classes * ipc, generator=torch.Generator().manual_seed(0))
    owners = torch.arange(classes).repeat_interleave(ipc)[order]
    owners[owners == 4] = 5  # a class without an image, and one with more than its share
    labels = 0.6 * torch.nn.functional.one_hot(owners, classes).float()
    labels[:, 11] += 0.4 * torch.linspace(0, 1, len(owners))
    labels[:, 10] += 0.4 - 0.4 * torch.linspace(0, 1, len(owners))
    levels = torch.arange(len(owners)) * 7 / 255
    _write_preview(tmp_path / "p.png", levels[:, None, None, None].expand(-1, 1, size, size), labels, classes)
    shown = shown_labels(labels.numpy(), tuple(map(str, range(classes))))
    with Image.open(tmp_path / "p.png") as picture:
        pixels = np.asarray(picture)[..., 0]
    assert (shown.rows, shown.columns) == (3, 10)
    height, width = pixels.shape[0] / shown.rows, pixels.shape[1] / shown.columns
    for row in range(shown.rows):
        for column in range(shown.columns):
            level = pixels[int((row + 0.5) * height), int((column + 0.5) * width)]
            top = shown.tops[row * shown.columns + column]
            assert (level == 255) == (top == ())
            if top:
                own = labels[round(level / 7)]
                assert top[0] == (column, pytest.approx(float(own[column])))
                assert [part for _, part in top] == sorted(own.tolist(), reverse=True)[:5]


def test_soft_labels_as_text() -> None:
    shown = shown_labels(np.array([[0.75, 0.25], [0.1, 0.9]], dtype=np.float32), ("cat", "dog"))
    assert shown.is_soft
    assert shown.sentence == "soft labels, 82.5 % on the largest class"
    assert json.loads(shown.text) == {
        "columns": 2,
        "names": {"0": "cat", "1": "dog"},
        "tops": [[0, 750, 1, 250], [1, 900, 0, 100]],
    }


def test_hard_labels_are_certain() -> None:
    shown = shown_labels(np.array([1, 0, 1, 0]), ("cat", "dog"))
    assert shown.sentence == "hard labels"
    assert shown.tops == (((0, 1.0),), ((1, 1.0),)) * 2


@pytest.mark.parametrize("labels", [np.zeros((4, 3)), np.array([0, 2]), np.array([-1, 0])])
def test_labels_that_do_not_fit_the_classes_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not fit 2 classes"):
        shown_labels(labels, ("cat", "dog"))


def test_labels_are_read_from_a_trial(tmp_path: Path) -> None:
    write_tensors(tmp_path / "distilled.safetensors", {"images": torch.zeros(2, 1, 4, 4), "labels": torch.eye(2)})
    assert read_labels(tmp_path) is None
    write_json(tmp_path / "card.json", {"classes": ["cat", "dog"]})
    shown = read_labels(tmp_path)
    assert shown is not None
    assert shown.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("card", "tensors"),
    [(b"{", None), (b"{}", None), (b'{"classes": ["a"]}', None), (b'{"classes": ["a", "b"]}', b"x")],
)
def test_files_that_cannot_be_read_give_no_labels(tmp_path: Path, card: bytes, tensors: bytes | None) -> None:
    write_tensors(tmp_path / "distilled.safetensors", {"labels": torch.eye(2)})
    (tmp_path / "card.json").write_bytes(card)
    if tensors is not None:
        (tmp_path / "distilled.safetensors").write_bytes(tensors)
    assert read_labels(tmp_path) is None
