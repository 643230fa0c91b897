"""SGR's schedule, weights and lessons against the equations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, train_experts
from ddnl_ray.lnl.neighbours import neighbour_consistency
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.models.parts import PART_BYTES
from ddnl_ray.robust.sgr import Sgr, SgrConfig
from ddnl_ray.seeds import SeedTree

CONFIG = SgrConfig(neighbours=3)
NETWORK = NetworkSpec("convnet2", 4)


def policy(num_experts: int = 4, warmup_epochs: float = 5, config: SgrConfig = CONFIG) -> Sgr:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(22, 1, 8, 8, generator=generator), torch.randint(0, 3, (22,), generator=generator)
    prior = 0.05 + 0.95 * torch.rand(22, generator=generator)
    return Sgr(config, images, labels, prior, num_experts, warmup_epochs)


def network_and_theta(seed: int = 0) -> tuple[Flat, Tensor]:
    network = Flat(build(NETWORK, (1, 8, 8), 3, torch.Generator().manual_seed(seed)))
    return network, 3 * network.flatten()


@pytest.mark.parametrize(
    ("expert", "epoch", "expected"),
    [
        (0, 0, 0),
        (0, 99, 0),
        (3, 0, 0),
        (1, 2, 0.4 / 4),
        (3, 4, 0.8 * 3 / 4),
        (3, 5, 3 / 4),
        (2, 5, 2 / 4),
        (3, 99, 3 / 4),
    ],
)
def test_the_share_of_the_neighbours_grows_to_the_limit_of_the_expert(expert: int, epoch: int, expected: float) -> None:
    assert policy().alpha(expert, epoch) == pytest.approx(expected)
    half = policy(config=replace(CONFIG, alpha_max=0.5))
    assert half.alpha(expert, epoch) == pytest.approx(expected / 2)


def test_without_a_warm_up_an_expert_starts_at_its_limit() -> None:
    assert [policy(warmup_epochs=0).alpha(expert, 0) for expert in range(4)] == [0, 0.25, 0.5, 0.75]


def test_the_first_expert_and_the_first_epoch_have_the_prior_alone() -> None:
    sgr, (network, theta) = policy(), network_and_theta()
    for expert, epoch in ((0, 0), (0, 50), (3, 0)):
        weights = sgr.weights(expert, epoch, network, theta * math.nan)
        assert torch.equal(weights, sgr.prior)
        assert weights.data_ptr() != sgr.prior.data_ptr()


@pytest.mark.parametrize(("expert", "epoch"), [(1, 1), (3, 3), (3, 50)])
def test_the_weights_are_the_mixture_of_both_scores(expert: int, epoch: int) -> None:
    sgr, (network, theta) = policy(), network_and_theta()
    module = network.module
    torch.nn.utils.vector_to_parameters(theta, module.parameters())
    with torch.no_grad():
        features, p = module.features(sgr.images), module(sgr.images).softmax(1)  # type: ignore[operator]
    agreement = neighbour_consistency(features.double(), p.double(), sgr.labels, 3)
    alpha = min(epoch / 5, 1) * expert / 4
    expected = (1 - alpha) * sgr.prior + alpha * agreement.float()
    found = sgr.weights(expert, epoch, network, theta)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert float((found - sgr.prior).abs().max()) > 0.01


def test_images_in_parts_have_the_weights_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sgr, (network, theta) = policy(), network_and_theta()
    whole = sgr.weights(3, 9, network, theta)
    monkeypatch.setitem(PART_BYTES, "cpu", 1)
    torch.testing.assert_close(sgr.weights(3, 9, network, theta), whole, rtol=1e-5, atol=1e-6)


def test_a_lesson_is_every_image_with_its_observed_label_and_weights_of_mean_1() -> None:
    sgr, (network, theta) = policy(), network_and_theta()
    theta.requires_grad_()
    for expert, epoch in ((0, 0), (2, 3), (3, 9)):
        lesson = sgr.lesson(expert, epoch, network, theta)
        assert lesson.labels is sgr.labels
        assert lesson.rows is None
        assert lesson.weights is not None
        assert float(lesson.weights.mean()) == pytest.approx(1, rel=1e-6)
        weights = sgr.weights(expert, epoch, network, theta)
        torch.testing.assert_close(lesson.weights * weights.mean(), weights)
        assert not lesson.weights.requires_grad


def test_a_lesson_depends_on_its_arguments_alone() -> None:
    sgr = policy()
    first, second = network_and_theta(0), network_and_theta(1)
    before = sgr.lesson(3, 9, *first).weights
    other = sgr.lesson(3, 9, *second).weights
    after = sgr.lesson(3, 9, *first).weights
    assert before is not None
    assert after is not None
    assert other is not None
    assert torch.equal(before, after)
    assert not torch.equal(before, other)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_equal_priors_train_the_first_expert_as_if_there_were_none(optimizer: str) -> None:
    sgr = policy()
    sgr = replace(sgr, prior=torch.full_like(sgr.prior, 0.5))
    recipe = ExpertRecipe(network=NETWORK, epochs=2, batch_size=8, lr=0.1, augment=None, optimizer=optimizer)
    seeds = [SeedTree.root(0).child("expert", index) for index in range(2)]
    plain = train_experts(sgr.images, sgr.labels, 3, recipe, seeds)
    guided = train_experts(sgr.images, sgr.labels, 3, recipe, seeds, policy=sgr)
    torch.testing.assert_close(guided[0].snapshots, plain[0].snapshots, rtol=1e-5, atol=1e-6)
    assert float((guided[1].snapshots[-1] - plain[1].snapshots[-1]).abs().max()) > 1e-4


def test_too_few_images_for_the_neighbours_are_an_error() -> None:
    with pytest.raises(RequestError, match=r"neighbours must lie in \[1, 21\] with 22 images, but got 22; lower it"):
        policy(config=replace(CONFIG, neighbours=22)).weights(1, 1, *network_and_theta())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior_weight": 1.1}, r"prior_weight must lie in \[0, 1\], but got 1.1"),
        ({"floor": -0.1}, r"floor must lie in \[0, 1\], but got -0.1"),
        ({"warmup": math.nan}, r"warmup must lie in \[0, 1\], but got nan"),
        ({"alpha_max": 2}, r"alpha_max must lie in \[0, 1\], but got 2"),
        ({"neighbours": 0}, "neighbours must be at least 1, but got 0"),
        ({"forgetting_lr": -1.0}, "forgetting_lr must be above 0, but got -1.0"),
    ],
)
def test_bad_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(CONFIG, **changes)  # type: ignore[arg-type]
