"""The semi-supervised loss of a golden set: its assembly from its pieces, and where its gradients go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.errors import RequestError
from ddnl_ray.lnl.mixmatch import Batch, draw_mixing, draw_share, prior_penalty, targets_of, two_views
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.semi import dividemix_loss, draw_batch, released_loss
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture
def network() -> Flat:
    return Flat(build(NetworkSpec("convnet1", 4), (1, 8, 8), 3, SEED.torch()))


@pytest.fixture
def theta(network: Flat) -> Tensor:
    return network.flatten().double().requires_grad_()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def golden() -> Golden:
    """Of 30 samples the first 12 are clean, with growing weights, and the next 4 relabelled."""
    rows = torch.arange(30)
    weight = torch.where(rows < 12, 0.5 + rows / 30, (rows < 16).float())
    return Golden(rows % 3, rows < 16, (rows >= 12) & (rows < 16), weight)


def test_a_batch_is_drawn_without_replacement_from_both_sides(golden: Golden) -> None:
    batch = draw_batch(golden, 16, 10, torch.Generator().manual_seed(0))
    assert sorted(batch.labelled.tolist()) == list(range(16))
    assert batch.labelled.tolist() != list(range(16))
    assert len(batch.unlabelled.unique()) == 10
    assert (batch.unlabelled >= 16).all()


def test_a_short_side_is_drawn_with_replacement(golden: Golden) -> None:
    batch = draw_batch(golden, 40, 90, torch.Generator().manual_seed(0))
    assert (len(batch.labelled), len(batch.unlabelled)) == (40, 90)
    assert (batch.labelled < 16).all()
    assert (batch.unlabelled >= 16).all()
    assert len(batch.unlabelled.unique()) == 14


def test_without_unlabelled_samples_the_side_is_dropped_and_without_golden_ones_nothing_works() -> None:
    every = torch.ones(6, dtype=torch.bool)
    everything = Golden(torch.arange(6) % 3, every, ~every, every.float())
    batch = draw_batch(everything, 4, 4, torch.Generator().manual_seed(0))
    assert (len(batch.labelled), len(batch.unlabelled)) == (4, 0)
    empty = Golden(everything.labels, everything.relabelled, everything.relabelled, everything.weight)
    with pytest.raises(RequestError, match=r"golden set is empty.*lengthen warm_up"):
        draw_batch(empty, 4, 4, torch.Generator())


def pieces(network: Flat, theta: Tensor, images: Tensor, golden: Golden, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss of the mixed views at a weight of 3, and that of the golden images, from separate passes."""
    b, u = len(batch.labelled), len(batch.unlabelled)
    views = two_views(images, batch, SEED.child("views").torch(), flip=True)
    labels = golden.labels[batch.labelled]
    targets = targets_of(network, theta, views, labels, golden.weight[batch.labelled], 0.5)
    mixing = draw_mixing(2 * (b + u), 4.0, SEED.child("mixing"))
    logs = network(theta, mixing.apply(views)).log_softmax(1)
    mixed = mixing.apply(targets)
    loss = -(mixed * logs)[: 2 * b].sum(1).mean() - (logs.exp().mean(0) * 3).log().mean()
    if u:
        loss = loss + 3 * (logs.exp() - mixed)[2 * b :].square().mean()
    return loss, F.cross_entropy(network(theta, views[:b]), labels)


@pytest.mark.parametrize("num_unlabelled", [10, 0])
def test_the_whole_loss_is_its_parts(
    network: Flat, theta: Tensor, images: Tensor, golden: Golden, num_unlabelled: int
) -> None:
    batch = Batch(torch.arange(3, 14), torch.arange(16, 16 + num_unlabelled))
    config = RdcConfig(unlabelled_weight=4.0)
    # Epoch 17 is 12 of 16 after the warm-up of 5: a weight of 3.
    found = dividemix_loss(network, theta, images, golden, batch, 17, config, SEED)
    expected = sum(pieces(network, theta, images, golden, batch))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(each, theta)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_the_golden_images_have_a_gradient_of_their_own(
    network: Flat, theta: Tensor, images: Tensor, golden: Golden
) -> None:
    batch = Batch(torch.arange(16), torch.arange(16, 30))
    mixed, own = pieces(network, theta, images, golden, batch)
    whole = dividemix_loss(network, theta, images, golden, batch, 17, RdcConfig(unlabelled_weight=4.0), SEED)
    (rest,) = torch.autograd.grad(whole - mixed, theta)
    (expected,) = torch.autograd.grad(own, theta)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(rest, expected, rtol=1e-6, atol=1e-10)


def test_labels_outside_the_golden_set_have_no_effect(
    network: Flat, theta: Tensor, images: Tensor, golden: Golden
) -> None:
    batch = Batch(torch.arange(14), torch.arange(16, 30))
    other = Golden(torch.where(golden.member, golden.labels, 0), golden.member, golden.relabelled, golden.weight)
    for loss in (
        lambda own: dividemix_loss(network, theta, images, own, batch, 17, RdcConfig(), SEED),
        lambda own: released_loss(network, theta, images, own, batch, RdcConfig(), SEED),
    ):
        assert torch.equal(loss(golden), loss(other))


def test_the_released_loss_is_cross_entropy_of_blended_images_and_the_penalty(
    network: Flat, theta: Tensor, images: Tensor, golden: Golden
) -> None:
    config = RdcConfig(ssl="released", alpha=0.75, labelled_batch=14, unlabelled_batch=14)
    batch = draw_batch(golden, 14, 14, torch.Generator().manual_seed(0))
    share = draw_share(0.75, SEED)
    assert 0.5 < share < 1
    blended = share * images[batch.labelled] + (1 - share) * images[batch.unlabelled]
    logs = network(theta, blended).log_softmax(1)
    hard = -logs[torch.arange(14), batch.labelled % 3].mean()
    expected = hard - (3 * logs.exp().mean(0)).log().mean()
    found = released_loss(network, theta, images, golden, batch, config, SEED)
    torch.testing.assert_close(found, expected)
    # Of the released blend of targets only the largest entry remains, and that is the golden label.
    other = F.one_hot((batch.labelled + 1) % 3, 3)
    blend = share * F.one_hot(batch.labelled % 3, 3) + (1 - share) * other
    assert torch.equal(blend.argmax(1), batch.labelled % 3)


def test_the_released_loss_without_unlabelled_images(
    network: Flat, theta: Tensor, images: Tensor, golden: Golden
) -> None:
    batch = Batch(torch.arange(16), torch.arange(0))
    logits = network(theta, images[:16])
    expected = F.cross_entropy(logits, golden.labels[:16]) + prior_penalty(logits.softmax(1))
    torch.testing.assert_close(released_loss(network, theta, images, golden, batch, RdcConfig(), SEED), expected)


def test_a_few_steps_teach_the_network_the_golden_labels(network: Flat) -> None:
    """Images whose class shows in their brightness; of those with a wrong label none is in the golden set."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.arange(120) % 3
    wrong = torch.arange(120) % 5 == 0
    patterns = torch.randn(3, 1, 8, 8, generator=generator)
    images = patterns[clean] + 0.3 * torch.randn(120, 1, 8, 8, generator=generator)
    golden = Golden(torch.where(wrong, (clean + 1) % 3, clean), ~wrong, torch.zeros_like(wrong), (~wrong).float())
    config = RdcConfig(labelled_batch=32, unlabelled_batch=16, warm_up=0)
    theta = network.flatten()
    for step in range(40):
        seed, leaf = SEED.child("step", step), theta.requires_grad_()
        batch = draw_batch(golden, 32, 16, seed.child("rows").torch())
        (gradient,) = torch.autograd.grad(
            dividemix_loss(network, leaf, images, golden, batch, step / 2, config, seed), leaf
        )
        theta = (leaf - 0.2 * gradient).detach()
    accuracy = (network(theta, images).argmax(1) == clean).float().mean()
    assert accuracy > 0.9
