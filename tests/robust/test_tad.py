"""TAD's split on clusters whose true labels are known, and what its policies hand to the experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe, train_experts
from ddnl_ray.experts.policy import Lesson
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.robust.probes import sample_losses
from ddnl_ray.robust.reliability import Reference, anchor_statistics
from ddnl_ray.robust.rounds import Curation, Round, quality
from ddnl_ray.robust.tad import TadConfig, TadInTraining, TadPolicy, split_and_relabel
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)
NETWORK = NetworkSpec("convnet1", 4)


def split(clusters: Any, number: int = 3, **changes: Any) -> Round:
    config = TadConfig(**changes)
    return split_and_relabel(clusters.losses, clusters.observed, 4, clusters.reference, config, number)


def test_wrong_labels_are_found_and_put_right(clusters: Any) -> None:
    wrong = float((clusters.observed != clusters.clean).double().mean())
    assert 0.35 < wrong < 0.45
    found = split(clusters)
    (scores,) = quality(Curation.of(clusters.observed, (found,)), clusters.clean)
    assert scores["precision"] > 0.95
    assert scores["recall"] > 0.9
    assert scores["rows"] == 400
    assert scores["accepted_accuracy"] > 0.99
    assert scores["label_accuracy"] > 0.97
    assert not (found.trusted & found.accepted).any()


def test_what_a_trusted_sample_keeps(clusters: Any) -> None:
    found = split(clusters)
    assert torch.equal(found.pseudo_labels[found.trusted], clusters.observed[found.trusted])
    assert (found.margins[found.trusted] == 0).all()
    assert (found.reliability[~found.trusted] == 0).all()
    assert found.reliability.min() == 0
    assert found.reliability.max() == 1


def test_a_larger_share_is_accepted_each_round(clusters: Any) -> None:
    rounds = [split(clusters, number) for number in (1, 2, 3, 4)]
    untrusted = int((~rounds[0].trusted).sum())
    counts = [int(found.accepted.sum()) for found in rounds]
    assert counts == [-(-untrusted // 2), -(-3 * untrusted // 4), untrusted, untrusted]
    first = rounds[0]
    refused = ~first.trusted & ~first.accepted
    assert first.margins[first.accepted].min() >= first.margins[refused].max()
    assert int(split(clusters, 1, accept="all").accepted.sum()) == untrusted
    assert int(split(clusters, 9, accept_shares=(1.0, 0.0)).accepted.sum()) == 0


def test_without_the_inner_loop_nothing_is_relabelled(clusters: Any) -> None:
    found, whole = split(clusters, loops="outer"), split(clusters)
    assert torch.equal(found.trusted, whole.trusted)
    assert not found.accepted.any()
    assert torch.equal(found.pseudo_labels, clusters.observed)
    assert found.rows.tolist() == found.trusted.nonzero().flatten().tolist()


def test_labels_that_all_look_alike_are_all_trusted(clusters: Any) -> None:
    found = split_and_relabel(torch.ones(400), clusters.observed, 4, clusters.reference, TadConfig(), 1)
    assert found.trusted.all()
    assert len(found.rows) == 400
    assert torch.equal(found.pseudo_labels, clusters.observed)


def test_the_sieve_takes_what_the_voters_outvote(clusters: Any) -> None:
    plain, sieved = split(clusters), split(clusters, sieve=True)
    gone = plain.trusted & ~sieved.trusted
    wrong = plain.trusted & (clusters.observed != clusters.clean)
    assert wrong.sum() >= 3
    assert torch.equal(gone, wrong)
    assert not (sieved.trusted & ~plain.trusted).any()
    assert torch.equal(sieved.pseudo_labels[gone], clusters.clean[gone])
    assert (sieved.reliability[~sieved.trusted] == 0).all()


def test_the_sieve_spares_the_voters(clusters: Any) -> None:
    plain, sieved = split(clusters, top_k=400), split(clusters, top_k=400, sieve=True)
    assert (plain.trusted & (clusters.observed != clusters.clean)).any()
    assert torch.equal(sieved.trusted, plain.trusted)


def test_a_class_that_is_never_trusted_for_its_losses_keeps_its_smallest(clusters: Any) -> None:
    losses = torch.where(clusters.observed == 2, 30 + clusters.losses, clusters.losses)
    found = split_and_relabel(losses, clusters.observed, 4, clusters.reference, TadConfig(threshold_rule="fixed"), 1)
    own = clusters.observed == 2
    assert int(found.trusted[own].sum()) == 20
    assert losses[own & found.trusted].max() <= losses[own & ~found.trusted].min()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "round"}, r"unknown mode 'round': did you mean 'rounds'"),
        ({"threshold_rule": "mean"}, r"unknown threshold_rule 'mean'"),
        ({"reliability": "both"}, r"unknown reliability 'both'"),
        ({"accept": "none"}, r"unknown accept 'none'"),
        ({"rounds": 0}, r"rounds must be at least 1, but got 0"),
        ({"pca_dim": 0}, r"pca_dim must be at least 1, but got 0"),
        ({"consistency_weight": -0.1}, r"consistency_weight must be 0 or more, but got -0\.1"),
        ({"log_zero": 0.0}, r"log_zero must be below 0, but got 0\.0"),
        ({"probe_epochs": 2}, r"loss_epochs must be at most probe_epochs, but got 3 with 2"),
        ({"probe_epochs": 3}, r"anchor_epochs must be at most probe_epochs, but got 4 with 3"),
        ({"accept_shares": ()}, r"accept_shares must be one or more numbers in \[0, 1\], but got \[\]"),
        ({"accept_shares": (0.5, 1.5)}, r"accept_shares .* but got \[0\.5, 1\.5\]"),
    ],
)
def test_what_is_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TadConfig(**changes)


def test_only_the_product_of_weight_and_constant_counts() -> None:
    assert TadConfig().consistency == pytest.approx(0.4)
    assert TadConfig(consistency_weight=0.2, log_zero=-2.0).consistency == pytest.approx(0.4)


# --- policies ------------------------------------------------------------------------------------------------------


def recipe(**changes: Any) -> ExpertRecipe:
    return replace(ExpertRecipe(network=NETWORK, epochs=3, batch_size=8, lr=0.1, augment="flip_crop"), **changes)


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_where_all_is_trusted_experts_are_the_plain_ones(
    images: Callable[..., tuple[Tensor, Tensor]], optimizer: str
) -> None:
    x, y = images()
    settings = recipe(optimizer=optimizer)
    seeds = [SEED.child(index) for index in range(2)]
    policy = TadPolicy.of(Curation.of(y, ()), TadConfig(consistency_weight=0))
    plain = train_experts(x, y, 3, settings, seeds)
    for own, expected in zip(train_experts(x, y, 3, settings, seeds, policy=policy), plain, strict=True):
        assert torch.equal(own.snapshots, expected.snapshots)
        assert own.losses == expected.losses


def test_experts_learn_what_was_chosen(images: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """What is left out may be anything; new labels and the consistency term both count."""
    x, y = images()
    rows = torch.arange(0, 30, 2)
    chosen = TadPolicy(y, rows, 0.4)
    spoilt = x.clone()
    spoilt[1::2] = 100

    def final(images: Tensor, policy: TadPolicy) -> Tensor:
        return train_experts(images, y, 3, recipe(), [SEED], policy=policy)[0].snapshots[-1]

    expected = final(x, chosen)
    assert torch.equal(final(spoilt, chosen), expected)
    for other in (replace(chosen, labels=(y + 1) % 3), replace(chosen, consistency=0.0)):
        assert not torch.equal(final(x, other), expected)


@pytest.fixture
def in_training(images: Callable[..., tuple[Tensor, Tensor]]) -> tuple[TadInTraining, Flat]:
    x, y = images(90)
    features = torch.nn.functional.normalize(x.flatten(1), dim=1)
    statistics = anchor_statistics(features[:30], y[:30], features, 3, 4)
    config = TadConfig(mode="in_training", warmup_epochs=2, minimum_trusted=5)
    network = Flat(build(NETWORK, (1, 4, 4), 3, SEED.torch()))
    return TadInTraining(x, y, 3, Reference(features, statistics), config), network


def test_experts_see_all_while_they_warm_up(in_training: tuple[TadInTraining, Flat]) -> None:
    policy, network = in_training
    assert policy.consistency == pytest.approx(0.4)
    for epoch in (0, 1):
        lesson = policy.lesson(0, epoch, network, network.flatten())
        assert lesson.rows is None
        assert torch.equal(lesson.labels, policy.labels)


@pytest.mark.parametrize(("epoch", "number"), [(2, 1), (3, 2), (7, 6)])
def test_a_warm_expert_splits_by_its_own_weights(
    in_training: tuple[TadInTraining, Flat], epoch: int, number: int
) -> None:
    policy, network = in_training
    for theta in (network.flatten(), 2 * network.flatten()):
        losses = sample_losses(network, [theta], policy.images, policy.labels)
        expected = split_and_relabel(losses, policy.labels, 3, policy.reference, policy.config, number)
        for expert in (0, 3):
            lesson = policy.lesson(expert, epoch, network, theta)
            assert lesson.rows is not None
            assert torch.equal(lesson.rows, expected.rows)
            assert torch.equal(lesson.labels[lesson.rows], Curation.of(policy.labels, (expected,)).labels[lesson.rows])
    assert 0 < int(expected.trusted.sum()) < 90


def test_an_expert_that_splits_in_training_goes_on_bit_for_bit(in_training: tuple[TadInTraining, Flat]) -> None:
    policy, _ = in_training
    x, y = policy.images, policy.labels
    whole = train_experts(x, y, 3, recipe(epochs=5), [SEED], policy=policy)[0]
    first = train_experts(x, y, 3, recipe(epochs=3), [SEED], policy=policy)[0]
    rest = train_experts(x, y, 3, recipe(epochs=5), [SEED], [first.end], policy)[0]
    assert torch.equal(torch.cat([first.snapshots, rest.snapshots]), whole.snapshots)
    plain = train_experts(x, y, 3, recipe(epochs=5), [SEED])[0]
    assert not torch.equal(plain.snapshots, whole.snapshots)


def test_ablations_in_training(in_training: tuple[TadInTraining, Flat]) -> None:
    policy, network = in_training
    theta = network.flatten()

    def lesson(**changes: Any) -> Lesson:
        config = replace(policy.config, **changes)
        return replace(policy, config=config, reference=None).lesson(0, 5, network, theta)

    assert lesson(loops="none").rows is None
    split_only = lesson(loops="outer")
    assert split_only.rows is not None
    assert len(split_only.rows) < 90
    assert torch.equal(split_only.labels, policy.labels)
