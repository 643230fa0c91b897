"""The cleaners that read held-out predictions, against what is known of these by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddnl_ray.denoise import Problem, build_cleaner, clean
from ddnl_ray.denoise.knn import vote_shares
from ddnl_ray.lnl.confident import confident_joint
from ddnl_ray.lnl.heldout import FoldsState
from ddnl_ray.lnl.mixture import clean_posterior
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def evidence(problem: Problem, probabilities: Tensor, neighbours: Tensor | None = None) -> FoldsState:
    """The state at the end of two folds of two epochs."""
    num, none = len(problem.labels), torch.zeros(0)
    near = torch.zeros(num, 0, dtype=torch.int64) if neighbours is None else neighbours
    zeros = torch.zeros(2, dtype=torch.int64)
    fold = torch.zeros(num, dtype=torch.int64)
    return FoldsState(4, fold, probabilities, near, zeros, none, none, none, torch.zeros(()), torch.zeros(2, 0))


def by_hand() -> tuple[Problem, Tensor, Tensor]:
    """Twenty images of two classes, of which two carry the label of the other; sure predictions; the truth."""
    truth = torch.arange(20) % 2
    labels = truth.clone()
    labels[[4, 7]] = 1 - truth[[4, 7]]
    sure = 0.9 - 0.01 * torch.arange(20, dtype=torch.float64)
    probabilities = torch.empty(20, 2, dtype=torch.float64)
    probabilities[torch.arange(20), truth] = sure
    probabilities[torch.arange(20), 1 - truth] = 1 - sure
    images = torch.zeros(20, 1, 8, 8)
    template = build_problem(images, labels)
    return template, probabilities, truth


def build_problem(images: Tensor, labels: Tensor) -> Problem:
    from ddnl_ray.models import NetworkSpec

    return Problem(images, labels, 2, NetworkSpec("convnet1", 4))


def cleaner(name: str, **settings: Any) -> Any:
    return build_cleaner(name, {"folds": 2, "epochs": 2, **settings})


def test_confident_learning_drops_or_relabels_the_suspects() -> None:
    problem, probabilities, truth = by_hand()
    state = evidence(problem, probabilities)
    found = cleaner("confident").export(state, problem)
    assert (~found.kept).nonzero().flatten().tolist() == [4, 7]
    assert torch.equal(found.hard, problem.labels)
    joint = confident_joint(problem.labels.numpy(), probabilities.numpy())
    assert found.rate == pytest.approx(joint[0, 1] + joint[1, 0])
    np.testing.assert_allclose(found.transition, (joint / joint.sum(0)).T)
    own = probabilities.gather(1, problem.labels[:, None]).squeeze(1)
    torch.testing.assert_close(found.confidence, own.float())
    relabelled = cleaner("confident", relabel="noisy_only").export(state, problem)
    assert torch.equal(relabelled.hard, truth)
    assert relabelled.kept.all()


def test_the_loss_mixture_replaces_labels_of_large_loss() -> None:
    problem, probabilities, truth = by_hand()
    found = cleaner("lossmix").export(evidence(problem, probabilities), problem)
    assert torch.equal(found.hard, truth)
    own = probabilities.gather(1, problem.labels[:, None]).squeeze(1)
    posterior = clean_posterior(-own.log())
    torch.testing.assert_close(found.confidence, posterior.float())
    given = torch.nn.functional.one_hot(problem.labels, 2)
    soft = posterior[:, None] * given + (1 - posterior[:, None]) * probabilities
    torch.testing.assert_close(found.soft, soft.float())
    assert found.rate == pytest.approx(float(1 - posterior.mean()))


def test_a_single_outlier_does_not_rescale_all_losses() -> None:
    problem, probabilities, _ = by_hand()
    outlier = probabilities.clone()
    outlier[0] = torch.tensor([1e-300, 1.0])
    mild = probabilities.clone()
    mild[0] = torch.tensor([1e-4, 1 - 1e-4])
    found = [cleaner("lossmix").export(evidence(problem, each), problem).confidence for each in (outlier, mild)]
    torch.testing.assert_close(*found)


def test_votes_by_hand() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    neighbours = torch.tensor([[1, 2], [0, 3], [3, 0], [0, 1]])
    third = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0.5, 0, 0.5], [1, 0, 0]]
    assert vote_shares(labels, neighbours, 3).tolist() == third


def test_outvoted_labels_are_replaced_and_ties_stay() -> None:
    problem, probabilities, _ = by_hand()
    labels = torch.tensor([0, 0, 1, 1] + [0] * 16)
    neighbours = torch.tensor([[1, 2], [0, 4], [0, 1], [2, 0], *[[0, 1]] * 16])
    problem = dataclasses.replace(problem, labels=labels)
    state = evidence(problem, probabilities, neighbours)
    found = cleaner("knn", source="heldout").export(state, problem)
    # The first and the fourth are tied with another class; the third is outvoted.
    assert found.hard.tolist() == [0, 0, 0, 1] + [0] * 16
    assert found.rate == pytest.approx(1 / 20)
    assert found.confidence[:4].tolist() == [0.5, 1, 0, 0.5]
    torch.testing.assert_close(found.transition, torch.tensor([[18 / 19, 1 / 19], [0, 1]], dtype=torch.float64))
    dropped = cleaner("knn", source="heldout", relabel="drop").export(state, problem)
    assert (~dropped.kept).nonzero().flatten().tolist() == [2]


def test_given_features_need_no_training(noisy: tuple[Problem, Tensor]) -> None:
    problem, truth = noisy
    knn = build_cleaner("knn", {"neighbours": 10})
    assert knn.length(problem) == 0
    found = clean(knn, problem, SEED)
    assert (found.hard == truth).float().mean() > 0.95
    assert abs(found.rate - 0.3) < 0.05
    features = torch.nn.functional.normalize(problem.features)  # type: ignore[arg-type]
    near = (features @ features.T).fill_diagonal_(-2).topk(10).indices
    votes = torch.stack([(problem.labels[near] == label).float().mean(1) for label in range(3)], 1)
    torch.testing.assert_close(found.soft, votes)


@pytest.mark.parametrize("name", ["confident", "lossmix", "knn"])
def test_labels_get_better(name: str, noisy: tuple[Problem, Tensor]) -> None:
    problem, truth = noisy
    settings = {"folds": 3, "epochs": 8, "batch_size": 16, "lr": 0.05, "relabel": "noisy_only"}
    if name == "knn":
        settings["source"] = "heldout"
    found = clean(build_cleaner(name, settings), problem, SEED)
    wrong = problem.labels != truth
    assert (found.hard == truth).float().mean() > 0.85
    assert found.confidence[~wrong].mean() > 0.3 + found.confidence[wrong].mean()
