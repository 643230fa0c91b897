"""TAD's rounds on digits with 40 % symmetric label noise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data import PrepareConfig, PreparedData, load, prepare
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, Trajectory, train_experts
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise
from ddnl_ray.robust import curate as module
from ddnl_ray.robust.curate import curate, make_reference
from ddnl_ray.robust.rounds import Curation, quality
from ddnl_ray.robust.tad import TadConfig, TadInTraining, TadPolicy
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0).child("tad")
RECIPE = ExpertRecipe(network=NetworkSpec("convnet2", 8), batch_size=32, lr=0.05, augment=None)
BASE = (
    "mtt",
    {
        "syn_steps": 5,
        "expert_epochs": 2,
        "max_start_epoch": 8,
        "lr_img": 100.0,
        "lr_lr": 1e-4,
        "lr_teacher": 0.05,
        "batch_syn": 50,
    },
)


@dataclass(frozen=True)
class Noisy:
    """Digits with wrong labels, and the arguments of :func:`curate` that are made of them."""

    data: PreparedData
    labels: NoisyLabels

    def embed(self, images: Tensor) -> Tensor:
        """Pixels, less the mean image, as features."""
        return F.normalize((images - self.data.train_images.mean(0)).flatten(1), dim=1)

    def curate(self, base: tuple[str, dict[str, Any]] = BASE, **changes: Any) -> Curation:
        values = {"rounds": 2, "probes": 1, "probe_epochs": 20, "anchors_per_class": 10, "anchor_iterations": 10}
        config = TadConfig(**(values | changes))
        embed = self.embed if config.inner else None
        return curate(self.data.train_images, self.labels.labels, 10, RECIPE, embed, base, None, config, SEED)


@pytest.fixture(scope="module")
def noisy() -> Noisy:
    torch.set_num_threads(1)
    data = prepare(load("digits"), PrepareConfig(subset=700, val_fraction=0.0))
    noise, whole = NoiseConfig("symmetric", 0.4), data.observed_labels
    labels = apply_noise(noise, whole, dataset="digits", num_classes=10, seed=0, clean=data.clean_labels)
    return Noisy(data, labels.select(data.train_index))


@pytest.fixture(scope="module")
def curated(noisy: Noisy) -> Curation:
    return noisy.curate()


def test_most_of_what_is_trusted_is_true(noisy: Noisy, curated: Curation) -> None:
    assert noisy.labels.clean is not None
    scores = quality(curated, noisy.labels.clean)
    assert [each["round"] for each in scores] == [1, 2]
    for each in scores:
        assert each["precision"] > 0.85
        assert each["recall"] > 0.85
        assert each["accepted_accuracy"] > 0.6
        assert each["label_accuracy"] > 0.8
        assert min(each["histogram"]) >= 20
    assert scores[1]["rows"] > scores[0]["rows"]
    kept = curated.rows
    assert torch.equal(curated.labels[kept], curated.rounds[-1].pseudo_labels[kept])


def test_the_same_seed_gives_the_same_bits(
    noisy: Noisy, curated: Curation, global_random_untouched: Callable[[int], AbstractContextManager[None]]
) -> None:
    with global_random_untouched(3):
        again = noisy.curate()
    for name, value in curated.to_tensors().items():
        assert torch.equal(again.to_tensors()[name], value), name


def test_without_the_inner_loop_the_untrusted_are_left_out(noisy: Noisy, curated: Curation) -> None:
    found = noisy.curate(loops="outer", base=("datm", {}))  # as a sweep gives it: there are no anchors to distil
    assert torch.equal(found.rounds[0].trusted, curated.rounds[0].trusted)
    assert torch.equal(found.labels, noisy.labels.labels)
    assert found.rows.tolist() == found.rounds[1].trusted.nonzero().flatten().tolist()
    # The second round's probes learn from the first round's choice, which differs.
    assert not torch.equal(found.rounds[1].losses, curated.rounds[1].losses)


def test_without_the_outer_loop_all_is_kept_and_nothing_is_trained(
    noisy: Noisy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train_probes", None)
    found = noisy.curate(loops="none")
    assert found.rounds == ()
    assert len(found.rows) == 700
    assert torch.equal(found.labels, noisy.labels.labels)
    assert TadPolicy.of(found, TadConfig()).consistency == pytest.approx(0.4)


def test_a_wrong_base_is_refused_before_anything_is_trained(noisy: Noisy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "train_probes", None)
    with pytest.raises(RequestError, match="unknown base method 'full'"):
        noisy.curate(base=("full", {}))


def test_rounds_may_distil_anchors_of_their_own(noisy: Noisy, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = module.distil_anchors

    def count(images: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        sizes.append(len(images))
        return original(images, *rest)

    monkeypatch.setattr(module, "distil_anchors", count)
    short = {"probe_epochs": 4, "anchor_iterations": 1}
    noisy.curate(**short)
    assert sizes == [700]
    found = noisy.curate(refresh_anchors=True, **short)
    assert sizes == [700, 700, len(found.rounds[0].rows)]


def test_every_probe_of_every_round_has_a_seed_of_its_own(noisy: Noisy, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[SeedTree] = []
    original = module.train_probes

    def note(*arguments: Any) -> list[Trajectory]:
        used.extend(arguments[4])
        return original(*arguments)

    monkeypatch.setattr(module, "train_probes", note)
    noisy.curate(loops="outer", rounds=3, probes=2, probe_epochs=4, loss_epochs=1)
    assert len({seed.path for seed in used}) == 6


def test_experts_that_split_in_training_trust_what_is_true(noisy: Noisy) -> None:
    config = TadConfig(mode="in_training", warmup_epochs=14, probes=1, anchors_per_class=10, anchor_iterations=10)
    x, y = noisy.data.train_images, noisy.labels.labels
    reference = make_reference(x, y, 10, RECIPE, noisy.embed, BASE, None, config, SEED)
    policy = TadInTraining(x, y, 10, reference, config)
    recipe = ExpertRecipe(network=RECIPE.network, epochs=17, batch_size=32, lr=0.05, augment=None)
    (expert,) = train_experts(x, y, 10, recipe, [SEED.child("expert", 0)], policy=policy)
    lesson = policy.lesson(
        0, 17, module.Flat(module.build(recipe.network, (1, 8, 8), 10, SEED.torch())), expert.snapshots[-1]
    )
    assert lesson.rows is not None
    assert noisy.labels.clean is not None
    right = lesson.labels[lesson.rows] == noisy.labels.clean[lesson.rows]
    assert float(right.double().mean()) > 0.75
    assert len(lesson.rows) == 700
