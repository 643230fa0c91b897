"""SGR and TIAT on real images with 40 % symmetric noise: which labels they trust."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ddnl_ray.data import PrepareConfig, load, prepare
from ddnl_ray.experts import ExpertRecipe, Trajectory, train_experts
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.noise import NoiseConfig, apply_noise
from ddnl_ray.robust.forgetting import forgetting_history, forgetting_prior
from ddnl_ray.robust.sgr import Sgr, SgrConfig
from ddnl_ray.robust.tiat import TiatConfig, fine_tune, reliable_subset
from ddnl_ray.seeds import SeedTree

NETWORK = NetworkSpec("convnet2", 8)
CONFIG = SgrConfig(
    forgetting_networks=1, forgetting_first_epochs=15, forgetting_second_epochs=15, forgetting_batch_size=64
)
RECIPE = ExpertRecipe(network=NETWORK, epochs=20, batch_size=64, lr=0.05, augment=None)
EXPERTS = 3


@dataclass(frozen=True)
class Outcome:
    """What the experts learnt from, and what they became."""

    images: Tensor
    labels: Tensor
    truth: Tensor
    policy: Sgr
    guided: list[Trajectory]
    plain: list[Trajectory]

    @property
    def right(self) -> Tensor:
        return self.labels == self.truth

    @property
    def weights(self) -> Tensor:
        """The last weights of every expert [experts, N]."""
        network = Flat(build(NETWORK, (1, 8, 8), 10, torch.Generator()))
        ends = enumerate(each.snapshots[-1] for each in self.guided)
        return torch.stack([self.policy.weights(expert, RECIPE.epochs, network, theta) for expert, theta in ends])

    def accuracy(self, theta: Tensor) -> float:
        """Accuracy against the truth on the training images."""
        network = Flat(build(NETWORK, (1, 8, 8), 10, torch.Generator()))
        return float((network(theta, self.images).argmax(1) == self.truth).float().mean())


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    data = prepare(load("digits"), PrepareConfig(subset=800, val_fraction=0))
    noise = NoiseConfig("symmetric", 0.4)
    clean = data.clean_labels
    assert clean is not None
    noisy = apply_noise(noise, data.observed_labels, dataset="digits", num_classes=10, seed=0, clean=clean).labels
    images, labels, truth = data.train_images, noisy[data.train_index], clean[data.train_index]
    seed = SeedTree.root(0)
    times = forgetting_history(images, labels, 10, NETWORK, CONFIG, seed.child("forgetting"))
    prior = forgetting_prior(times.t_learn, times.t_forget, CONFIG.prior_weight, CONFIG.floor)
    policy = Sgr(CONFIG, images, labels, prior, EXPERTS, CONFIG.warmup * RECIPE.epochs)
    seeds = [seed.child("expert", index) for index in range(EXPERTS)]
    # One at a time, as on a CPU.
    guided, plain = [], []
    for index, own in enumerate(seeds):
        guided += train_experts(images, labels, 10, RECIPE, [own], policy=policy, experts=[index])
        plain += train_experts(images, labels, 10, RECIPE, [own])
    return Outcome(images, labels, truth, policy, guided, plain)


def area_under_curve(score: Tensor, positive: Tensor) -> float:
    """The probability that a positive scores above a negative; ties count half."""
    above = score[positive].unsqueeze(1) - score[~positive]
    return float((above > 0).float().mean() + (above == 0).float().mean() / 2)


def test_the_prior_trusts_right_labels(outcome: Outcome) -> None:
    prior, right = outcome.policy.prior, outcome.right
    assert area_under_curve(prior, right) > 0.9
    assert float(prior[right].mean()) > float(prior[~right].mean()) + 0.3


def test_the_last_weights_of_every_expert_trust_right_labels(outcome: Outcome) -> None:
    for weights in outcome.weights:
        assert area_under_curve(weights, outcome.right) > 0.9


@pytest.mark.parametrize(("rule", "gain"), [("quantile", 0.15), ("confidence", 0.3)])
@pytest.mark.parametrize("per_class", [True, False])
def test_the_subset_is_cleaner_than_the_data(outcome: Outcome, rule: str, gain: float, per_class: bool) -> None:
    config = TiatConfig(rule=rule, per_class=per_class)
    rows = reliable_subset(outcome.policy.prior, outcome.weights, outcome.labels, 10, config)
    assert len(rows) == pytest.approx(0.6 * 800, abs=10)
    share = float(outcome.right.float().mean())
    assert share < 0.65
    assert float(outcome.right[rows].float().mean()) > share + gain


def test_guided_experts_are_better_than_plain_ones(outcome: Outcome) -> None:
    """Over all experts and their last five epochs, which differ a lot in themselves."""

    def mean(trajectories: list[Trajectory]) -> float:
        found = [outcome.accuracy(theta) for each in trajectories for theta in each.snapshots[-5:]]
        return sum(found) / len(found)

    assert mean(outcome.guided) > mean(outcome.plain) + 0.02


def test_tuned_targets_are_better_than_those_of_the_expert(outcome: Outcome) -> None:
    """Over 24 targets: those of one expert differ by more than they gain."""
    rows = reliable_subset(outcome.policy.prior, outcome.weights, outcome.labels, 10, TiatConfig())
    epochs = list(range(2, 18, 2))
    gains = []
    for index, each in enumerate(outcome.guided):
        seeds = [SeedTree.root(0).child("tune", index, epoch) for epoch in epochs]
        tuned = fine_tune(outcome.images, outcome.labels, 10, RECIPE, each.snapshots[epochs], rows, 2, seeds)
        targets = each.snapshots[[epoch + 2 for epoch in epochs]]
        gains += [outcome.accuracy(own) - outcome.accuracy(other) for own, other in zip(tuned, targets, strict=True)]
    assert sum(gains) / len(gains) > 0.01
