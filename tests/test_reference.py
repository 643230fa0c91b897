"""Reference networks: their gradients, what they are trained on, and sets that are read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ddnl_ray.data import PrepareConfig, load, prepare
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.models import NetworkSpec, build
from ddnl_ray.reference import gradient_norms, judge, read_distilled, train_reference
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def test_gradient_norms_are_those_of_one_sample_at_a_time() -> None:
    model = build(NetworkSpec("convnet1", 4), (1, 8, 8), 3, SEED.torch(), torch.device("cpu"))
    images = torch.randn(5, 1, 8, 8, generator=SEED.child("x").torch())
    labels = torch.tensor([0, 1, 2, 0, 1])
    expected = []
    for image, label in zip(images, labels, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None]), label[None]).backward()
        squares = [(each.grad.double() ** 2).sum() for each in model.parameters() if each.grad is not None]
        expected.append(float(torch.stack(squares).sum().sqrt()))
    assert gradient_norms(model, images, labels).tolist() == pytest.approx(expected, rel=1e-5)
    judged = judge(model, images)
    torch.testing.assert_close(judged.probabilities, model(images).detach().double().softmax(1), rtol=1e-5, atol=1e-6)
    assert judged.latents.shape == (5, 4 * 4 * 4)


def test_the_reference_network_learns_the_clean_labels() -> None:
    """The observed labels are all of the next class; the network says the true one."""
    data = prepare(load("digits"), PrepareConfig(subset=300, test_subset=100))
    wrong = dataclasses.replace(data, observed_labels=(data.observed_labels + 1) % 10)
    recipe = EvalRecipe(epochs=15, batch_size=64, lr=0.02, augment=None)
    model = train_reference(wrong, recipe, NetworkSpec("convnet1", 8), "cpu", SEED)
    right = judge(model, data.test_images).probabilities.argmax(1) == data.test_labels
    assert float(right.double().mean()) > 0.6
    with pytest.raises(RequestError, match="nobody knows the clean labels of digits"):
        train_reference(dataclasses.replace(data, clean_labels=None), recipe, NetworkSpec("convnet1", 8), "cpu", SEED)


def test_a_trial_without_a_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="has no distilled set with a card"):
        read_distilled(tmp_path)
    (tmp_path / "distilled.safetensors").write_bytes(b"x")
    (tmp_path / "card.json").write_text('{"images": {"sha256": "0"}}')
    with pytest.raises(CorruptFileError, match="is not the set of its card"):
        read_distilled(tmp_path)
