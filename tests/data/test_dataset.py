from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ddnl_ray.data import Dataset, load
from ddnl_ray.errors import DataError


@pytest.fixture
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return Dataset(
        name="tiny",
        classes=("a", "b"),
        train_images=torch.randint(0, 17, (6, 1, 4, 4), generator=generator).to(torch.uint8),
        train_labels=torch.tensor([0, 1, 0, 1, 0, 1]),
        test_images=torch.randint(0, 17, (3, 1, 4, 4), generator=generator).to(torch.uint8),
        test_labels=torch.tensor([0, 1, 1]),
        max_value=16,
        clean_labels=None,
        licence="none",
        source="SRC",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a",)}, "SRC: at least 2 classes are needed, but got ['a']"),
        ({"max_value": 256}, "max_value must be in 1..255, but got 256"),
        ({"max_value": 3}, "training pixels must be at most 3, but one is 16"),
        (
            {"train_images": torch.zeros(6, 1, 4, 4)},
            "training images must be uint8 [N, C, H, W], but got torch.float32",
        ),
        ({"test_images": torch.zeros(0, 1, 4, 4, dtype=torch.uint8)}, "there are no test images"),
        (
            {"train_images": torch.zeros(6, 2, 4, 4, dtype=torch.uint8)},
            "must have 1 or 3 channels, but have 2",
        ),
        (
            {"train_images": torch.zeros(6, 1, 4, 5, dtype=torch.uint8)},
            "are 4x5 pixels; resize them with --set data.size=5",
        ),
        (
            {"test_images": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)},
            "one shape, but got (1, 4, 4) and (3, 4, 4)",
        ),
        (
            {"train_labels": torch.tensor([0, 1])},
            "training labels must be int64 [6], one per image, but got torch.int64 [2]",
        ),
        (
            {"train_labels": torch.tensor([0, 1, 0, 2, 0, 3])},
            "training labels must be in 0..1, but row 3 has 2",
        ),
        ({"test_labels": torch.tensor([0, -1, 1])}, "test labels must be in 0..1, but row 1 has -1"),
        ({"clean_labels": torch.tensor([0, 1, 0, 1, 0, 9])}, "clean labels must be in 0..1, but row 5 has 9"),
        ({"train_labels": torch.zeros(6, dtype=torch.int64)}, "but class 1 ('b') has none"),
    ],
)
def test_each_fault_is_named(dataset: Dataset, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        replace(dataset, **change)
    assert message in str(caught.value)


def test_the_fingerprint_depends_on_pixels_labels_and_classes_only(dataset: Dataset) -> None:
    assert len(dataset.fingerprint) == 16
    assert replace(dataset, name="other", licence="x", source="y").fingerprint == dataset.fingerprint
    pixels = dataset.train_images.clone()
    pixels[5, 0, 3, 3] = (pixels[5, 0, 3, 3] + 1) % 17
    changes = [
        {"train_images": pixels},
        {"train_labels": torch.tensor([1, 1, 0, 1, 0, 1])},
        {"test_labels": torch.tensor([1, 1, 1])},
        {"clean_labels": dataset.train_labels},
        {"classes": ("a", "c")},
        {"max_value": 17},
    ]
    prints = {dataset.fingerprint, *(replace(dataset, **change).fingerprint for change in changes)}
    assert len(prints) == len(changes) + 1


def test_the_fingerprint_does_not_depend_on_memory_layout(dataset: Dataset) -> None:
    strided = dataset.train_images.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    assert replace(dataset, train_images=strided).fingerprint == dataset.fingerprint


def test_digits() -> None:
    digits = load("digits")
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.max_value == 16
    assert int(digits.train_images.max()) == 16
    assert digits.classes == tuple("0123456789")
    assert torch.equal(digits.clean_labels, digits.train_labels)
    share = torch.bincount(digits.test_labels) / (
        torch.bincount(digits.test_labels) + torch.bincount(digits.train_labels)
    )
    assert (share - 360 / 1797).abs().max() < 0.01


def test_the_split_of_digits_never_moves() -> None:
    assert load("digits").fingerprint == "dfbbd932bb74fd3c"
