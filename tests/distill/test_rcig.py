"""RCIG: its contract on both kinds of networks, its pool, rates, labels and averages, and one step by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ddnl_ray.data import PrepareConfig, load, prepare
from ddnl_ray.distill.base import Problem
from ddnl_ray.distill.moments import AdaBelief, Adam, Moments
from ddnl_ray.distill.rcig import Rcig, RcigState, clipped, label_margin, passes, readout_weights
from ddnl_ray.distill.rcig_config import RcigConfig
from ddnl_ray.distill.rcig_rates import falls, largest_rate, rate_change
from ddnl_ray.errors import RequestError
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import MethodContract
from ddnl_ray.testing.problems import CLASSES, toy_problem

SMALL: dict[str, Any] = {
    "iterations": 3,
    "batch_real": 10,
    "inner_steps": 2,
    "hessian_steps": 2,
    "pool_size": 2,
    "pool_steps": 2,
    "adapt_every": 2,
}
GIVEN = SMALL | {"lr_inner": 1e-3, "lr_hessian": 1.0}
SEED = SeedTree.root(0)


def problem(graph_memory: int = 0, device: torch.device | str = "cpu") -> Problem:
    """The toy problem with a network that RCIG has."""
    network = Flat(build(NetworkSpec("doubling2", 3), (1, 8, 8), CLASSES, SEED.torch(), device))
    return dataclasses.replace(toy_problem(2, device=device), network=network, graph_memory=graph_memory, augment=None)


class TestRcig(MethodContract):
    method = Rcig
    config = RcigConfig(**GIVEN, max_age=2, batch_pool=3)

    def problem(self, device: torch.device) -> Problem:
        return problem(2**20, device)


class TestRcigOnOtherNetworks(MethodContract):
    method = Rcig
    config: ClassVar[RcigConfig] = RcigConfig(**(GIVEN | {"hessian": "released", "flip": False, "softplus": 0.0}))


def run(config: RcigConfig, steps: int, work: Problem | None = None) -> list[RcigState]:
    work, method = work or problem(), Rcig(config)
    states = [method.init(work, SEED)]
    for _ in range(steps):
        states.append(method.step(states[-1], work, SEED)[0])
    return states


def test_learning_rates_are_tuned_before_the_first_step_unless_given() -> None:
    state = run(RcigConfig(**SMALL), 0)[0]
    assert 1e-5 < float(state.lr_inner) < 1
    assert 5e-5 < float(state.lr_hessian) < 1e3
    given = run(RcigConfig(**GIVEN), 0)[0]
    assert (float(given.lr_inner), float(given.lr_hessian)) == (1e-3, 1.0)
    assert [float(run(RcigConfig(**SMALL, solver="cg"), 0)[0].lr_inner)] == [0.0]


def test_a_rate_is_a_share_of_the_first_that_fails() -> None:
    """Descending ``x^2 / 2`` by plain steps fails above 2."""
    tried = []

    def objective(lr: Tensor) -> Tensor:
        tried.append(float(lr))
        return torch.stack([(1 - lr) ** (2 * taken) for taken in range(5)])

    found = largest_rate(objective, torch.tensor(0.1, dtype=torch.float64))
    assert tried[-2] < 2 < tried[-1]
    assert tried[1] == pytest.approx(0.12)
    assert float(found) == pytest.approx(0.84 * tried[-1])


@pytest.mark.parametrize(
    ("window", "factor"),
    [((50, 15, 50), 0.9), ((50, 14, 35), 1.05), ((50, 14, 34), 1.0), ((100, 29, 0), 0.9), ((100, 28, 0), 1.0)],
)
def test_the_inner_rate_follows_its_window(window: tuple[int, int, int], factor: float) -> None:
    assert float(rate_change(torch.tensor(window))) == pytest.approx(factor)


def test_losses_that_stand_still_do_not_fall() -> None:
    assert bool(falls(torch.tensor([3.0, 2.0, 1.0])))
    assert not bool(falls(torch.tensor([3.0, 2.0, 2.0])))
    assert bool(falls(torch.tensor([1.0])))


def test_the_window_starts_again_when_the_rate_has_been_adapted() -> None:
    states = run(RcigConfig(**GIVEN), 3)
    assert [int(state.window[0]) for state in states] == [0, 1, 0, 1]
    assert float(states[2].lr_inner) in (pytest.approx(9e-4), pytest.approx(1e-3), pytest.approx(1.05e-3))


def test_networks_grow_older_and_are_replaced() -> None:
    """Ages rise by 1 to 2 steps of the one that was drawn; at 3 there is a fresh network of age 0."""
    states = run(RcigConfig(**GIVEN, max_age=3), 12)
    replaced = 0
    for before, after in itertools.pairwise(states):
        changed = (before.networks != after.networks).any(1)
        assert changed.sum() == 1
        index = int(changed.nonzero())
        old, new = int(before.ages[index]), int(after.ages[index])
        if new == 0:
            replaced += 1
            assert old + 2 >= 3
            assert not bool(after.networks_first[index].any() | after.networks_second[index].any())
        else:
            assert old < new <= min(old + 2, 2)
    assert replaced >= 2


def test_a_network_learns_as_torch_teaches_it() -> None:
    """Adam on half the mean squared error of the new labels, over images and their mirrored copies."""
    work, config = problem(), RcigConfig(**(GIVEN | {"lr_net": 0.01, "softplus": 0.0, "pool_size": 1}))
    before, after = run(config, 1, work)
    assert work.network is not None
    module = work.network.module
    for parameter, value in zip(module.parameters(), work.network.unflatten(before.networks[0]).values(), strict=True):
        parameter.data.copy_(value)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    images, labels = torch.cat([after.images, after.images.flip(-1)]), torch.cat([after.labels] * 2)
    for _ in range(int(after.ages[0])):
        optimizer.zero_grad()
        (0.5 * (module(images) - labels).square().sum() / labels.numel()).backward()
        optimizer.step()
    torch.testing.assert_close(after.networks[0], work.network.flatten(), rtol=1e-4, atol=1e-5)


def test_the_optimizers_keep_their_recurrences() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    x, zero = torch.randn(5, generator=generator, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    optimizer, own, moments = torch.optim.Adam([leaf], lr=0.1), x, Moments(zero, zero)
    belief, kept = x, Moments(zero, zero)
    m, s, expected = zero, zero, x
    for taken, gradient in enumerate(gradients):
        leaf.grad = gradient
        optimizer.step()
        own, moments = Adam(0.1).step(own, moments, gradient, taken)
        belief, kept = AdaBelief(0.1).step(belief, kept, gradient, taken)
        m = 0.9 * m + 0.1 * gradient
        s = 0.999 * s + 0.001 * (gradient - m) ** 2 + 1e-16
        scale = (s / (1 - 0.999 ** (taken + 1))).sqrt() + 1e-16
        expected = expected - 0.1 * m / (1 - 0.9 ** (taken + 1)) / scale
    torch.testing.assert_close(own, leaf.detach())
    torch.testing.assert_close(belief, expected)


def test_the_first_step_of_adabelief_is_a_ninth_longer_than_its_rate() -> None:
    """With the new first moment, ``g - m`` is 0.9 g."""
    zero = torch.zeros(3)
    found, _ = AdaBelief(0.003).step(zero, Moments(zero, zero), torch.tensor([1.0, -2.0, 5.0]), 0)
    torch.testing.assert_close(found.abs(), torch.full((3,), 0.003 / 0.9))


def test_labels_start_centred_and_the_average_is_handed_over() -> None:
    states = run(RcigConfig(**GIVEN), 3)
    torch.testing.assert_close(states[0].labels.sum(1), torch.zeros(2 * CLASSES), rtol=0, atol=1e-6)
    assert states[0].labels[0].tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    weights = torch.tensor([0.01 * 0.99**age for age in (2, 1, 0)])
    mean = sum(weight * state.images for weight, state in zip(weights, states[1:], strict=True)) / weights.sum()
    exported = Rcig(RcigConfig(**GIVEN)).export(states[3], problem())
    torch.testing.assert_close(exported.images, mean)
    assert exported.scores
    assert exported.mirrored
    assert exported.decoded().images.shape[0] == 4 * CLASSES


def test_the_margin_and_its_derivative_are_those_of_automatic_differentiation() -> None:
    labels = torch.tensor([[0.7, -0.3, -0.2], [0.1, 0.05, -0.4], [-0.2, 0.3, 0.29]], dtype=torch.float64)
    leaf = labels.clone().requires_grad_()
    top = leaf.topk(2, dim=1).values
    expected = (top[:, 0] - top[:, 1]).clamp_max(1 / 6).mean()
    (slope,) = torch.autograd.grad(expected, leaf)
    value, found = label_margin(labels)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(found, slope)
    assert not bool(found[0].any())


def test_an_implicit_gradient_is_cut_to_the_direct_one() -> None:
    long, short = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(clipped(long, short), torch.tensor([0.6, 0.8]))
    assert torch.equal(clipped(short, long), short)
    assert torch.equal(clipped(torch.zeros(2), torch.zeros(2)), torch.zeros(2))


def test_real_images_come_in_shuffled_passes() -> None:
    rows = torch.cat([passes(10, 4, iteration, SEED) for iteration in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert sorted(passes(10, 99, 3, SEED).tolist()) == list(range(10))


def test_kept_tapes_change_nothing_but_rounding() -> None:
    ends = [run(RcigConfig(**GIVEN), 1, problem(memory))[1] for memory in (0, 2**30)]
    torch.testing.assert_close(ends[0].images_first, ends[1].images_first, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(ends[0].labels_first, ends[1].labels_first, rtol=1e-3, atol=1e-6)


def test_gradients_flow_through_both_copies_of_an_image() -> None:
    """Images that are their own mirror images stay so."""
    work = problem()
    symmetric = dataclasses.replace(work, images=(work.images + work.images.flip(-1)) / 2)
    end = run(RcigConfig(**GIVEN), 1, symmetric)[1]
    moment = end.images_first
    torch.testing.assert_close(moment, moment.flip(-1), rtol=1e-3, atol=1e-5 * float(moment.abs().max()))


def test_the_linear_layers_matrix_is_found_by_its_name() -> None:
    work = problem()
    assert work.network is not None
    theta = torch.arange(work.network.num_params)
    assert torch.equal(
        theta[readout_weights(work.network)], work.network.unflatten(theta)["classifier.weight"].flatten()
    )


def test_a_network_without_a_smooth_form_is_refused() -> None:
    with pytest.raises(RequestError, match=r"softplus is 60\.0, but ConvNet .* doubling3"):
        Rcig(RcigConfig(**GIVEN)).init(toy_problem(2, network=True), SEED)


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"solver": "sgd"},
        {"hessian": "none"},
        {"init": "zeros"},
        {"l2_rate": 0.0},
        {"softplus": -1.0},
        {"lr_inner": 0.0},
        {"lr_hessian": float("nan")},
        {"ema_decay": 1.0},
        {"pool_steps": 0},
        {"batch_pool": 0},
        {"adapt_every": -1},
    ],
)
def test_bad_values_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        RcigConfig(**bad)  # type: ignore[arg-type]


def test_the_loss_curve(golden: Callable[[str, Sequence[float]], None]) -> None:
    """Twenty steps on a tenth of the digits (see ``test_golden.py``)."""
    data = prepare(load("digits"), PrepareConfig(subset=150, val_fraction=0.1))
    labels, spec = data.observed_labels[data.train_index], NetworkSpec("doubling2", 4)
    network = Flat(build(spec, data.input_shape, 10, SEED.torch()))
    work = Problem(data.train_images, labels, 10, 1, network, None)
    config = RcigConfig(iterations=20, batch_real=64, inner_steps=4, hessian_steps=4, pool_size=3, lr_inner=1e-3,
                        lr_hessian=1.0, pool_steps=2)  # fmt: skip
    method = Rcig(config)
    state, losses = method.init(work, SEED), []
    for _ in range(20):
        state, info = method.step(state, work, SEED)
        assert info.accepted
        losses.append(info.loss)
    assert losses[-1] < losses[0]
    golden("rcig", losses)
