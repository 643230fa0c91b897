"""Held-out predictions: the folds, what a label may reach, and that a run goes on from its tensors."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch

from ddnl_ray.data import PrepareConfig, load, prepare
from ddnl_ray.errors import RequestError
from ddnl_ray.lnl.heldout import Folds, FoldsConfig, FoldsState, Step, held_out, neighbours_for, stratified_folds
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)
SMALL = FoldsConfig(network=NetworkSpec("convnet1", 4), folds=2, epochs=3, batch_size=32, lr=0.02)


def quiet(step: Step) -> None:
    pass


@cache
def digits(kind: str, rate: float | None, subset: int | None = None) -> tuple[torch.Tensor, NoisyLabels]:
    data = prepare(load("digits"), PrepareConfig(subset=subset, val_fraction=0))
    labels = apply_noise(
        NoiseConfig(kind, rate), data.observed_labels, dataset="digits", num_classes=10, seed=0, clean=data.clean_labels
    )
    return data.train_images, labels.select(data.train_index)


def test_folds_are_stratified() -> None:
    labels = torch.tensor([0] * 11 + [1] * 6 + [2] * 8)[torch.randperm(25, generator=SEED.torch())]
    fold = stratified_folds(labels, 3, SEED)
    counts = torch.stack([torch.bincount(labels[fold == number], minlength=3) for number in range(3)])
    assert (counts.amax(0) - counts.amin(0) <= 1).all()
    assert int(counts.sum(1).max() - counts.sum(1).min()) <= 1
    assert not torch.equal(fold, stratified_folds(labels, 3, SEED.child("other")))


def test_a_label_does_not_reach_what_is_said_of_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    images, noisy = digits("symmetric", 0.2, 120)
    fold = stratified_folds(noisy.labels, 2, SEED)
    monkeypatch.setattr("ddnl_ray.lnl.heldout.stratified_folds", lambda *_: fold)
    config = dataclasses.replace(SMALL, epochs=1)  # so that no label chooses the epoch
    before = held_out(images, noisy.labels, 10, config, SEED, quiet)
    labels = torch.where(fold == 0, (noisy.labels + 1) % 10, noisy.labels)
    after = held_out(images, labels, 10, config, SEED, quiet)
    assert torch.equal(after.probabilities[fold == 0], before.probabilities[fold == 0])
    assert not torch.equal(after.probabilities[fold == 1], before.probabilities[fold == 1])
    assert torch.equal(after.neighbours[fold == 0], before.neighbours[fold == 0])


def test_an_audit_is_reproducible_and_leaves_the_global_generators_alone(global_random_untouched: object) -> None:
    images, noisy = digits("symmetric", 0.2, 120)
    steps: list[Step] = []
    with global_random_untouched(7):  # type: ignore[operator]
        first = held_out(images, noisy.labels, 10, SMALL, SEED, steps.append)
    again = held_out(images, noisy.labels, 10, SMALL, SEED, quiet)
    assert torch.equal(first.probabilities, again.probabilities)
    assert torch.equal(first.neighbours, again.neighbours)
    assert [(step.fold, step.epoch) for step in steps] == [(fold, epoch) for fold in (1, 2) for epoch in (1, 2, 3)]
    assert str(steps[0]).startswith("fold 1 of 2, epoch 1 of 3: ")
    torch.testing.assert_close(first.probabilities.sum(1), torch.ones(120, dtype=torch.float64))
    assert all(1 <= epoch <= 3 for epoch in first.epochs)


@pytest.mark.parametrize(("num", "classes", "expected"), [(10_000, 10, 10), (40, 10, 2), (10, 10, 1), (3, 2, 1)])
def test_neighbours_fit_into_a_class(num: int, classes: int, expected: int) -> None:
    assert neighbours_for(num, classes) == expected


@pytest.mark.parametrize(("option", "value"), [("folds", 1), ("epochs", 0)])
def test_settings_out_of_range_are_refused(option: str, value: int) -> None:
    with pytest.raises(RequestError, match=f"{option} must be at least"):
        dataclasses.replace(SMALL, **{option: value})


def test_a_run_goes_on_from_its_tensors_bit_for_bit() -> None:
    images, noisy = digits("symmetric", 0.2, 120)
    whole = held_out(images, noisy.labels, 10, SMALL, SEED, quiet)
    folds = Folds(images, noisy.labels, 10, SMALL, SEED)
    state = folds.begin()
    with pytest.raises(ValueError, match="0 of 6 epochs are done"):
        folds.found(state)
    for _ in range(folds.length):
        state, _ = folds.advance(FoldsState.from_tensors(state.tensors(), "cpu"))
    found = folds.found(state)
    assert torch.equal(found.probabilities, whole.probabilities)
    assert torch.equal(found.neighbours, whole.neighbours)
    assert found.epochs == whole.epochs


def test_without_neighbours_none_are_looked_for() -> None:
    images, noisy = digits("symmetric", 0.2, 120)
    config = dataclasses.replace(SMALL, neighbours=0, epochs=1)
    assert held_out(images, noisy.labels, 10, config, SEED, quiet).neighbours.shape == (120, 0)
    with pytest.raises(RequestError, match="neighbours must be 0 or more"):
        dataclasses.replace(SMALL, neighbours=-1)
    with pytest.raises(RequestError, match="3 images are too few for 2 folds"):
        held_out(images[:3], noisy.labels[:3], 10, config, SEED, quiet)
