"""DivideMix: its division, its schedule, what one step learns from, and that the labels get better; C2D's changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.denoise import Problem, clean
from ddnl_ray.denoise.c2d import C2D, C2dConfig
from ddnl_ray.denoise.dividemix import DivideMix, DivideMixConfig, TwoNetworks, divide
from ddnl_ray.denoise.networks import Network
from ddnl_ray.lnl.mixmatch import draw_mixing
from ddnl_ray.lnl.mixture import lower_component
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_posterior_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.rand(60, generator=generator) * 0.4, 0.5 + torch.rand(40, generator=generator) * 0.5
    losses = torch.cat([low, high])
    model = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    model.fit(losses.double().numpy()[:, None])
    expected = model.predict_proba(losses.double().numpy()[:, None])[:, model.means_.argmin()]
    np.testing.assert_allclose(lower_component(losses, 10), expected, atol=1e-9)
    assert lower_component(losses, 10)[:60].min() > 0.5 > lower_component(losses, 10)[60:].max()


@pytest.mark.parametrize("losses", [torch.full((4,), 0.3), torch.zeros(1)])
def test_losses_of_one_kind_are_all_trusted(losses: Tensor) -> None:
    assert lower_component(losses, 10).tolist() == [1] * len(losses)


@pytest.mark.parametrize(
    ("posterior", "threshold", "expected"),
    [
        ([0.1, 0.5, 0.6, 0.9], 0.5, [False, False, True, True]),
        ([0.6, 0.7, 0.9], 0.5, [False, True, True]),  # all above: the least is moved to the other side
        ([0.1, 0.2, 0.4], 0.5, [False, False, True]),  # none above: the largest is labelled
        ([1.0, 1.0, 1.0], 0.5, [True, True, True]),
    ],
)
def test_neither_side_of_a_division_is_empty(posterior: list[float], threshold: float, expected: list[bool]) -> None:
    assert divide(double(*posterior), threshold).trusted.tolist() == expected


def test_learning_rates() -> None:
    divide_mix, c2d = DivideMixConfig(), C2dConfig()
    epochs = (0, 149, 150, 300)
    assert [divide_mix.optimizer(epoch).lr for epoch in epochs] == pytest.approx([0.02, 0.02, 0.002, 0.002])
    assert [c2d.optimizer(epoch).lr for epoch in epochs] == pytest.approx([0.02, 0.02, 0.002, 0.0002])


def test_each_network_learns_from_the_division_of_the_other(
    noisy: tuple[Problem, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, _ = noisy
    seen: list[tuple[int, Tensor, Tensor]] = []

    def learn(self: DivideMix, state: TwoNetworks, index: int, division: Any, *_: Any) -> tuple[TwoNetworks, float]:
        seen.append((index, division.posterior, state.weights))
        changed = state.weights.clone()
        changed[index] *= 1.5
        return dataclasses.replace(state, weights=changed), 0.0

    monkeypatch.setattr(DivideMix, "learn", learn)
    network = Network(problem)

    def posterior(theta: Tensor, steps: int) -> Tensor:
        losses = F.cross_entropy(network(theta, problem.images), problem.labels, reduction="none")
        return lower_component((losses - losses.min()) / (losses.max() - losses.min()), steps)

    for method, config in ((DivideMix, DivideMixConfig(warm_up=0)), (C2D, C2dConfig(warm_up=0))):
        seen.clear()
        method.from_trunk = False  # type: ignore[misc]
        cleaner = method(config)
        start = cleaner.init(problem, SEED)
        cleaner.step(start, problem, SEED)
        assert [index for index, _, _ in seen] == [0, 1]
        steps = config.mixture_steps
        torch.testing.assert_close(seen[0][1], posterior(start.weights[1], steps), atol=1e-5, rtol=1e-4)
        # The second network's division is made before the first learns, in C2D afterwards.
        first = start.weights[0] * (1.5 if method is C2D else 1.0)
        torch.testing.assert_close(seen[1][1], posterior(first, steps), atol=1e-5, rtol=1e-4)
        assert torch.equal(seen[1][2][0], 1.5 * start.weights[0])
    C2D.from_trunk = True  # type: ignore[misc]


def test_the_history_is_a_mean_of_scaled_losses(noisy: tuple[Problem, Tensor]) -> None:
    problem, _ = noisy
    cleaner = DivideMix(DivideMixConfig(history=True))
    state, network = cleaner.init(problem, SEED), Network(problem)
    scaled = []
    for number in range(7):
        state = dataclasses.replace(state, weights=state.weights * (1 + 0.1 * number))
        state = cleaner.score(state, 0, problem, network)
        losses = network.losses(state.weights[0], problem)
        scaled.append((losses - losses.min()) / (losses.max() - losses.min()))
        expected = lower_component(torch.stack(scaled[-5:]).mean(0), 10)
        torch.testing.assert_close(cleaner.posterior(state, 0), expected, atol=1e-4, rtol=1e-3)
    assert state.losses[1].isnan().all()
    without = DivideMix(DivideMixConfig())
    torch.testing.assert_close(without.posterior(state, 0), lower_component(scaled[-1], 10), atol=1e-5, rtol=1e-4)


def test_the_weight_of_other_images_rises_within_an_epoch(
    noisy: tuple[Problem, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, _ = noisy
    weights: list[float] = []

    def gradient(self: DivideMix, network: Any, theta: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        weights.append(rest[-2])
        return torch.zeros(()), torch.zeros_like(theta)

    monkeypatch.setattr(DivideMix, "gradient", gradient)
    cleaner = DivideMix(DivideMixConfig(warm_up=1, batch_size=16, unlabelled_weight=32.0))
    state = dataclasses.replace(cleaner.init(problem, SEED), iteration=3)
    division = divide(torch.linspace(0, 1, 150, dtype=torch.float64), 0.5)
    cleaner.learn(state, 0, division, problem, Network(problem), SEED)
    assert weights == pytest.approx([32 * (2 + step / 5) / 16 for step in range(5)])


@pytest.mark.parametrize(("method", "weight"), [("dividemix", 25.0), ("c2d", 25.0), ("c2d", 0.0)])
def test_a_step_is_against_the_gradient_of_the_mixed_loss(
    noisy: tuple[Problem, Tensor], method: str, weight: float
) -> None:
    problem, _ = noisy
    network = Network(problem)
    theta = network.begin(problem, SEED)
    views, goals = problem.images[:20], torch.rand(20, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
    cleaner = {
        "dividemix": DivideMix(DivideMixConfig(unlabelled_weight=weight)),
        "c2d": C2D(C2dConfig(unlabelled_weight=weight)),
    }[method]
    value, gradient = cleaner.gradient(network, theta, views, goals, 12, weight, SEED)
    mixing = draw_mixing(20, 4.0, SEED.child("mixing"))
    mixed, targets = (mixing.share * each + (1 - mixing.share) * each[mixing.order] for each in (views, goals))
    leaf = theta.clone().requires_grad_()
    p = network(leaf, mixed).softmax(1)
    entropy = -(targets * p.log())[:12].sum(1).mean()
    prior = -(3 * (p[:12] if not weight else p).mean(0)).log().mean()
    expected = entropy + weight * (p - targets)[12:].square().mean() + prior
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0], rtol=1e-3, atol=1e-5)


def test_labels_get_better(noisy: tuple[Problem, Tensor]) -> None:
    problem, truth = noisy
    settings = DivideMixConfig(epochs=16, warm_up=6, batch_size=16, warm_up_batch=16, lr=0.05)
    found = clean(DivideMix(settings), problem, SEED)
    wrong = problem.labels != truth
    assert (found.hard == truth).float().mean() > 0.95
    assert found.confidence[~wrong].mean() > 0.6 + found.confidence[wrong].mean()
    assert abs(found.rate - 0.3) < 0.12
