"""Labels that are handed over, by hand; what goes into tensors and comes back; the contract of every cleaner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor

from ddnl_ray.denoise import CLEANERS, Cleaned, Cleaner, CleanerConfig, Epoch, Known, Problem, build_cleaner, clean
from ddnl_ray.denoise.base import rows_normalised, settle, transition_of
from ddnl_ray.denoise.networks import Network
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)
SMALL: dict[str, dict[str, Any]] = {
    "dividemix": {"epochs": 4, "warm_up": 2, "history": True},
    "c2d": {"epochs": 4, "warm_up": 2, "unlabelled_weight": 0.0},
    "l2b": {"epochs": 4, "warm_up": 2, "meta": "known"},
    "coteaching": {"epochs": 4, "decay_start": 2, "forget_rate": 0.3},
    "confident": {"folds": 2, "epochs": 2, "batch_size": 32},
    "lossmix": {"folds": 2, "epochs": 2, "batch_size": 32},
    "knn": {"folds": 2, "epochs": 2, "batch_size": 32, "source": "heldout"},
}


def with_start(problem: Problem) -> Problem:
    """The problem with a trunk, and with true labels of four images."""
    network = Network(problem)
    theta = network.flat.fresh(SEED.child("trunk").torch())
    trunk = {name: part for name, part in network.flat.unflatten(theta).items() if not name.startswith("classifier.")}
    rows = torch.arange(4)
    return dataclasses.replace(problem, start=trunk, known=Known(rows, rows % 3))


def same(first: Cleaned, second: Cleaned) -> bool:
    tensors, others = first.to_tensors()[0], second.to_tensors()[0]
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def soft(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)


def test_labels_by_hand() -> None:
    observed = torch.tensor([0, 0, 1, 2])
    predicted = soft((0.9, 0.1, 0.0), (0.2, 0.8, 0.0), (0.4, 0.3, 0.3), (0.1, 0.7, 0.2))
    believed = torch.tensor([True, False, True, False])
    confidence = torch.tensor([0.9, 0.2, 0.3, 0.2])

    def handed(**settings: Any) -> tuple[list[int], list[bool]]:
        found = settle(CleanerConfig(**settings), observed, predicted, confidence, believed, 0.5, torch.eye(3))
        return found.hard.tolist(), found.kept.tolist()

    assert handed() == ([0, 1, 0, 1], [True] * 4)
    assert handed(sure=0.75) == ([0, 1, 0, 1], [True, True, False, False])
    assert handed(relabel="noisy_only") == ([0, 1, 1, 1], [True] * 4)
    assert handed(relabel="noisy_only", sure=0.75) == ([0, 1, 1, 1], [True, True, True, False])
    # The only label 2 is not believed, but the class keeps it.
    assert handed(relabel="drop") == ([0, 0, 1, 2], [True, False, True, True])
    assert believed.tolist() == [True, False, True, False]


def test_the_transition_matrix_by_hand() -> None:
    observed = torch.tensor([0, 1, 1, 0])
    found = transition_of(soft((1.0, 0, 0), (1.0, 0, 0), (0, 1.0, 0), (0.5, 0.5, 0)), observed)
    expected = torch.tensor([[0.6, 0.4, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(rows_normalised(torch.zeros(2, 2)), torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("name", CLEANERS)
def test_what_is_cleaned_is_well_formed_and_comes_back_from_tensors(name: str, noisy: tuple[Problem, Tensor]) -> None:
    problem = with_start(noisy[0])
    epochs: list[Epoch] = []
    cleaner = build_cleaner(name, SMALL[name])
    found = clean(cleaner, problem, SEED, epochs.append)
    num = len(problem.labels)
    assert [each.done for each in epochs] == list(range(1, cleaner.length(problem) + 1))
    assert (found.soft.shape, found.hard.shape, found.confidence.shape, found.kept.shape) == (
        (num, 3),
        (num,),
        (num,),
        (num,),
    )
    torch.testing.assert_close(found.soft.sum(1), torch.ones(num))
    torch.testing.assert_close(found.transition.sum(1), torch.ones(3, dtype=torch.float64))
    assert 0 <= found.rate <= 1
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert same(Cleaned.from_tensors(*found.to_tensors()), found)
    assert (found.networks is None) == (name in ("confident", "lossmix", "knn"))


@pytest.mark.parametrize("name", CLEANERS)
def test_a_run_goes_on_from_its_tensors_bit_for_bit(
    name: str, noisy: tuple[Problem, Tensor], global_random_untouched: Callable[[int], AbstractContextManager[None]]
) -> None:
    problem = with_start(noisy[0])
    cleaner: Cleaner[Any] = build_cleaner(name, SMALL[name])
    with global_random_untouched(1):
        whole = clean(cleaner, problem, SEED)
    state = cleaner.init(problem, SEED)
    while state.iteration < cleaner.length(problem):
        before = {key: value.clone() for key, value in state.tensors().items()}
        after, _ = cleaner.step(state, problem, SEED)
        assert all(torch.equal(before[key].nan_to_num(), value.nan_to_num()) for key, value in state.tensors().items())
        state = cleaner.state.from_tensors(after.tensors(), "cpu")
    assert same(cleaner.export(state, problem), whole)
    assert not same(clean(cleaner, problem, SEED.child("other")), whole)


def test_tensors_of_something_else_are_refused(noisy: tuple[Problem, Tensor]) -> None:
    tensors, meta = clean(build_cleaner("knn", {"neighbours": 3}), noisy[0], SEED).to_tensors()
    with pytest.raises(CorruptFileError, match="no tensors of cleaned labels"):
        Cleaned.from_tensors(tensors, {"kind": "extractor"})
    tensors.pop("kept")
    with pytest.raises(CorruptFileError, match="clean again"):
        Cleaned.from_tensors(tensors, meta)


@pytest.mark.parametrize("name", CLEANERS)
@pytest.mark.parametrize("case", ["no image of a class", "one label", "fewer images than a batch"])
def test_degenerate_sets_are_survived(name: str, case: str, noisy: tuple[Problem, Tensor]) -> None:
    problem = with_start(noisy[0])
    rows = torch.arange(12 if case == "fewer images than a batch" else 40)
    labels = problem.labels[rows]
    labels = {"no image of a class": labels % 2, "one label": torch.ones_like(labels)}.get(case, labels)
    assert problem.features is not None
    small = dataclasses.replace(problem, images=problem.images[rows], labels=labels, features=problem.features[rows])
    settings = SMALL[name] | ({"meta": "divided"} if name == "l2b" else {})
    found = clean(build_cleaner(name, settings), small, SEED)
    assert found.soft.isfinite().all()
    assert found.confidence.isfinite().all()
    assert found.kept.any()
    torch.testing.assert_close(found.transition.sum(1), torch.ones(3, dtype=torch.float64))


def test_networks_that_diverge_are_refused(noisy: tuple[Problem, Tensor]) -> None:
    with pytest.raises(RequestError, match=r"dividemix diverged in epoch \d.*lower its lr|loss is not finite"):
        clean(build_cleaner("dividemix", {"epochs": 3, "warm_up": 3, "lr": 1e30}), noisy[0], SEED)


def test_unknown_names_and_settings_are_refused() -> None:
    with pytest.raises(RequestError, match="did you mean 'dividemix'"):
        build_cleaner("dividmix", {})
    with pytest.raises(RequestError, match="knn has no setting 'neighbors': did you mean 'neighbours'"):
        build_cleaner("knn", {"neighbors": 3})
    with pytest.raises(RequestError, match="coteaching needs forget_rate"):
        build_cleaner("coteaching", {})
    for name, settings in [
        ("knn", {"relabel": "some"}),
        ("knn", {"sure": 1.5}),
        ("knn", {"source": "pixels"}),
        ("knn", {"neighbours": 0}),
        ("dividemix", {"threshold": -0.1}),
        ("dividemix", {"epochs": 0}),
        ("dividemix", {"alpha": 0.0}),
        ("dividemix", {"momentum": 1.0}),
        ("dividemix", {"unlabelled_weight": -1.0}),
        ("l2b", {"meta": "test"}),
        ("l2b", {"meta_batch": 0}),
        ("l2b", {"clip": 0.0}),
        ("coteaching", {"forget_rate": 1.0}),
        ("coteaching", {"forget_rate": 0.2, "ramp": 0}),
        ("coteaching", {"forget_rate": 0.2, "lr": 0.0}),
    ]:
        with pytest.raises(RequestError, match=next(reversed(settings)) if "source" not in settings else "features"):
            build_cleaner(name, settings)


def test_what_a_method_needs_is_asked_for(noisy: tuple[Problem, Tensor]) -> None:
    bare = dataclasses.replace(noisy[0], features=None)
    with pytest.raises(RequestError, match="self-supervised trunk, but was given none"):
        clean(build_cleaner("c2d", SMALL["c2d"]), bare, SEED)
    with pytest.raises(RequestError, match="knn needs features of all 150 images, but got none"):
        clean(build_cleaner("knn", {}), bare, SEED)
    with pytest.raises(RequestError, match="needs rows with true labels"):
        clean(build_cleaner("l2b", SMALL["l2b"]), bare, SEED)
    start = with_start(bare).start
    assert start is not None
    wrong = dataclasses.replace(bare, start={name: part[:1] for name, part in start.items()})
    with pytest.raises(RequestError, match="trunk is not one of convnet1"):
        clean(build_cleaner("c2d", SMALL["c2d"]), wrong, SEED)


def test_nothing_is_said_before_every_fold_is_done(noisy: tuple[Problem, Tensor]) -> None:
    cleaner = build_cleaner("lossmix", SMALL["lossmix"])
    state, _ = cleaner.step(cleaner.init(noisy[0], SEED), noisy[0], SEED)
    with pytest.raises(ValueError, match="1 of 4 epochs are done"):
        cleaner.export(state, noisy[0])


def test_the_trunk_is_where_c2d_starts(noisy: tuple[Problem, Tensor]) -> None:
    problem = with_start(noisy[0])
    assert problem.start is not None
    state = build_cleaner("c2d", SMALL["c2d"]).init(problem, SEED)
    network = Network(problem)
    parts = [network.flat.unflatten(theta) for theta in state.weights]
    for name, trunk in problem.start.items():
        assert torch.equal(parts[0][name], trunk)
        assert torch.equal(parts[1][name], trunk)
    assert not torch.equal(parts[0]["classifier.weight"], parts[1]["classifier.weight"])
