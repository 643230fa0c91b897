"""An audit: the refusals, and what is found on digits with noise of known rate."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from analysis.noise_rate import Evidence, Findings, Labels, find
from analysis.noise_rate.findings import precision
from analysis.theory.estimate import Resampling
from ddnl_ray.audit import audit_config, require_enough
from ddnl_ray.audit import with_features as embed
from ddnl_ray.data import PrepareConfig, load, prepare
from ddnl_ray.errors import RequestError
from ddnl_ray.features import SimclrConfig, train_simclr
from ddnl_ray.lnl.heldout import FoldsConfig, Step, held_out
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


@pytest.fixture(scope="module", params=[("none", None), ("symmetric", 0.2), ("symmetric", 0.4), ("pairflip", 0.4)])
def found(request: pytest.FixtureRequest) -> tuple[str, Findings]:
    """What an audit finds in digits, at half its usual length."""
    torch.set_num_threads(1)
    kind, rate = request.param
    images, noisy = digits(kind, rate)
    config = audit_config("digits", (1, 8, 8), 5, 10)
    held = held_out(images, noisy.labels, 10, config, SEED, quiet)
    assert noisy.clean is not None
    labels = Labels(
        data="digits",
        settings={},
        suggested="",
        classes=tuple("0123456789"),
        observed=noisy.labels.numpy(),
        rows=np.arange(len(images)),
        clean=noisy.clean.numpy(),
    )
    evidence = Evidence(probabilities=held.probabilities.numpy(), neighbours=held.neighbours.numpy(), source="")
    return kind, find(labels, evidence, (), SEED.numpy(), Resampling(draws=40))


TOLERANCE = {
    # Hard digits have high losses, and pairflip breaks what the mixture and the correction assume.
    "none": {"confident": 0.01, "lossmix": 0.1, "knn": 0.04, "knn_vote": 0.03},
    "symmetric": {"confident": 0.03, "lossmix": 0.08, "knn": 0.05, "knn_vote": 0.05},
    "pairflip": {"confident": 0.09, "lossmix": 0.25, "knn": 0.11, "knn_vote": 0.06},
}


def test_estimates_on_digits_are_near_the_truth(found: tuple[str, Findings]) -> None:
    kind, findings = found
    errors = {item.estimator: abs(item.rate - findings.true_rate) for item in findings.estimates}
    assert {name for name, error in errors.items() if error > TOLERANCE[kind][name]} == set(), errors


def test_suspects_on_digits_are_mostly_wrong_labels(found: tuple[str, Findings]) -> None:
    kind, findings = found
    if kind == "none":
        assert len(findings.suspects) <= 15
        return
    share = precision(findings)
    assert share is not None
    assert share > {"symmetric": 0.95, "pairflip": 0.6}[kind]
    wrong = float(findings.true_rate or 0) * len(findings.labels.observed)
    assert len(findings.suspects) * share / wrong > {"symmetric": 0.85, "pairflip": 0.6}[kind]
    top = findings.suspects[:50]
    assert findings.labels.clean is not None
    right = [findings.labels.clean[suspect.row] == suspect.suggested for suspect in top]
    assert np.mean(right) > {"symmetric": 0.95, "pairflip": 0.6}[kind]


def test_pairflip_is_found_to_gather_on_few_pairs(found: tuple[str, Findings]) -> None:
    kind, findings = found
    if kind != "none":
        assert findings.is_concentrated == (kind == "pairflip")
    if kind == "pairflip":
        most = {(pair.given, pair.likely) for pair in findings.confusions[:8]}
        assert most <= {((label + 1) % 10, label) for label in range(10)}


def test_neighbours_are_of_the_same_fold_unless_features_are_free_of_labels() -> None:
    images, noisy = digits("symmetric", 0.2, 200)
    found = held_out(images, noisy.labels, 10, SMALL, SEED, quiet)
    assert found.neighbours.shape == (200, 5)
    assert (found.fold[found.neighbours] == found.fold[:, None]).all()
    assert (found.neighbours != torch.arange(200)[:, None]).all()
    pixels = (images - images.min()) / (images.max() - images.min())
    config = SimclrConfig(network=NetworkSpec("convnet1", 4), epochs=1, batch_size=64, flip=False)
    free = embed(found, train_simclr(pixels, config, SEED), pixels)
    assert free.neighbours.shape == (200, 10)
    assert (found.fold[free.neighbours] != found.fold[:, None]).any()
    assert torch.equal(free.probabilities, found.probabilities)


def test_a_network_loses_blocks_where_images_are_small() -> None:
    assert audit_config("digits", (1, 8, 8), 5, 1).network == NetworkSpec("convnet2", 32)
    assert audit_config("folder", (3, 4, 4), 5, 1).network == NetworkSpec("convnet2")
    assert audit_config("folder", (3, 32, 32), 5, 1).network == NetworkSpec("convnet3")
    with pytest.raises(RequestError, match="no ConvNet fits"):
        audit_config("folder", (3, 1, 1), 5, 1)


def test_too_few_images_are_refused() -> None:
    names = ("ant", "bee")
    require_enough(torch.tensor([0, 0, 1, 1]), names, 2)
    with pytest.raises(RequestError, match="4 images are too few for 3 folds of 2 classes, which need 6"):
        require_enough(torch.tensor([0, 0, 1, 1]), names, 3)
    with pytest.raises(RequestError, match=r"class 1 \('bee'\) has 1 labelled images, but 2 folds need 2"):
        require_enough(torch.tensor([0, 0, 0, 1]), names, 2)
