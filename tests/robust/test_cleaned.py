"""Cleaned labels: what names them, how their making goes on after an interruption, and what is said of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddnl_ray.data import Normalise, PrepareConfig, PreparedData, load, prepare
from ddnl_ray.denoise import CLEANERS, Cleaned, Problem, build_cleaner, clean
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.features import SimclrConfig
from ddnl_ray.models import NetworkSpec
from ddnl_ray.robust import cleaned as module
from ddnl_ray.robust.cleaned import CleanedLabels, CleanedSource, CleanerTraining
from ddnl_ray.robust.derived import Inputs
from ddnl_ray.robust.outcome import Trusted
from ddnl_ray.robust.stages import Features, pixels

TRAINING = CleanerTraining(NetworkSpec("convnet1", 4), flip=False)
EXTRACTOR = SimclrConfig(network=NetworkSpec("convnet1", 4), epochs=1, batch_size=64, flip=False)
SETTINGS: dict[str, Any] = {"forget_rate": 0.4, "epochs": 4, "ramp": 2, "decay_start": 2, "batch_size": 32}


def labels_of(name: str = "coteaching", **changes: Any) -> CleanedLabels:
    given: dict[str, Any] = {
        "data": "d",
        "labels": "l",
        "cleaner": name,
        "settings": SETTINGS,
        "training": TRAINING,
        "num_classes": 10,
        "features": None,
        "root_seed": 0,
    }
    return CleanedLabels(**(given | changes))


@pytest.fixture(scope="module")
def digits() -> PreparedData:
    return prepare(load("digits"), PrepareConfig(subset=200, test_subset=50, val_fraction=0.2))


@pytest.fixture(scope="module")
def observed(digits: PreparedData) -> torch.Tensor:
    """The labels of the training part, of which every fifth is wrong."""
    labels = digits.observed_labels[digits.train_index].clone()
    labels[::5] = (labels[::5] + 3) % 10
    return labels


ALTERNATIVES: dict[str, Any] = {
    "data": "e",
    "labels": "m",
    "settings": SETTINGS | {"batch_size": 64},
    "training": dataclasses.replace(TRAINING, flip=True),
    "num_classes": 11,
    "features": Features("d", EXTRACTOR, 0),
    "root_seed": 1,
}


@given(st.sets(st.sampled_from(sorted(ALTERNATIVES))), st.sets(st.sampled_from(sorted(ALTERNATIVES))))
def test_every_ingredient_is_in_the_key_and_nothing_else(first: set[str], second: set[str]) -> None:
    one, other = (labels_of(**{name: ALTERNATIVES[name] for name in names}) for names in (first, second))
    assert (one.key == other.key) == (first == second)
    assert (one.seed.entropy() == other.seed.entropy()) == (first == second)


def test_the_name_of_the_cleaner_its_network_and_its_extractor_are_in_the_key() -> None:
    training = CleanerTraining(NetworkSpec("convnet1", 8), flip=False)
    longer = Features("d", dataclasses.replace(EXTRACTOR, epochs=2), 0)
    several = [
        labels_of(),
        labels_of("lossmix", settings={}),
        labels_of("confident", settings={}),
        labels_of(training=training),
        labels_of(features=ALTERNATIVES["features"]),
        labels_of(features=longer),
    ]
    assert len({each.key for each in several}) == len(several)
    assert len({CleanedSource(each).identity["cleaned"] for each in several}) == len(several)


@given(st.sampled_from(sorted(CLEANERS)), st.data())
def test_every_setting_is_in_the_key_by_value_and_a_default_that_is_spelt_out_is_not(name: str, data: Any) -> None:
    least = {"forget_rate": 0.2} if name == "coteaching" else {}
    config = build_cleaner(name, least).config
    plain = labels_of(name, settings=least)
    field = data.draw(st.sampled_from([each.name for each in dataclasses.fields(config)]))
    value = getattr(config, field)
    assert labels_of(name, settings=least | {field: value}).key == plain.key
    other = {"relabel": "drop", "sure": 0.5, "epochs": 400 if name == "c2d" else 700}
    for changed, new in other.items():
        if getattr(config, changed, new) != new:
            assert labels_of(name, settings=least | {changed: new}).key != plain.key


def test_it_is_what_the_cleaner_says_of_standardised_images(
    digits: PreparedData, observed: torch.Tensor, tmp_path: Path
) -> None:
    own, store = labels_of(), ExpertStore(tmp_path)
    own.build(Inputs(digits, observed, store))
    shown = pixels(digits, digits.train_images)
    problem = Problem(Normalise.fit(shown).apply(shown), observed, 10, TRAINING.network, TRAINING.flip)
    expected = clean(build_cleaner("coteaching", SETTINGS), problem, own.seed)
    found = own.cleaned(tmp_path)
    for field in ("soft", "hard", "confidence", "kept", "transition"):
        assert torch.equal(getattr(found, field), getattr(expected, field))
    assert found.rate == expected.rate
    assert (found.networks is None) == (expected.networks is not None)
    rows, labels = own.kept(tmp_path, torch.device("cpu"))
    assert rows.tolist() == expected.kept.nonzero().flatten().tolist()
    assert torch.equal(labels, expected.hard)


class Stop(Exception):
    """Ends a process in the middle of its work."""


def stop_after(patch: pytest.MonkeyPatch, name: str, steps: int) -> list[int]:
    """Let a cleaner take so many steps and no more; return the list of the epochs that it takes."""
    method, taken = CLEANERS[name][0], list[int]()
    step = method.step

    def stopping(self: Any, state: Any, *rest: Any) -> Any:
        if len(taken) == steps:
            raise Stop
        taken.append(state.iteration)
        return step(self, state, *rest)

    patch.setattr(method, "step", stopping)
    return taken


@pytest.mark.parametrize(
    ("name", "settings"),
    [("coteaching", SETTINGS), ("lossmix", {"folds": 2, "epochs": 3, "batch_size": 64})],
)
def test_an_interrupted_cleaning_goes_on_bit_for_bit(
    digits: PreparedData,
    observed: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    settings: dict[str, Any],
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_S", 0.0)
    own = labels_of(name, settings=settings)
    whole, pieces = (Inputs(digits, observed, ExpertStore(tmp_path / folder)) for folder in ("whole", "pieces"))
    own.build(whole)
    with monkeypatch.context() as patch:
        assert stop_after(patch, name, 3) == []
        with pytest.raises(Stop):
            own.build(pieces)
    assert not own.is_stored(pieces.store)
    assert [entry.name for entry in pieces.store.derived()] == [f"{own.name}.checkpoint"]
    with monkeypatch.context() as patch:
        taken = stop_after(patch, name, 100)
        own.build(pieces)
    assert taken[0] == 3
    first, second = (own.read(each.store.root)[0] for each in (whole, pieces))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert [entry.name for entry in pieces.store.derived()] == [own.name]


def test_a_damaged_checkpoint_and_one_of_something_else_are_passed_over(
    digits: PreparedData, observed: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_S", 0.0)
    own, inputs = labels_of(), Inputs(digits, observed, ExpertStore(tmp_path))
    other = labels_of(root_seed=1)
    with monkeypatch.context() as patch:
        stop_after(patch, "coteaching", 2)
        with pytest.raises(Stop):
            other.build(inputs)
    left = (tmp_path / f"{other.name}.checkpoint").read_bytes()
    for content in (b"spam", left):
        (tmp_path / f"{own.name}.checkpoint").write_bytes(content)
        with monkeypatch.context() as patch:
            taken = stop_after(patch, "coteaching", 100)
            own.build(inputs)
        assert taken[0] == 0
        own.path(tmp_path).unlink()


@pytest.mark.parametrize("name", ["c2d", "knn"])
def test_cleaners_with_features_get_the_extractors(
    digits: PreparedData, observed: torch.Tensor, tmp_path: Path, name: str
) -> None:
    settings = {"epochs": 2, "warm_up": 1, "batch_size": 32} if name == "c2d" else {"neighbours": 5}
    features = Features(digits.fingerprint, EXTRACTOR, 0)
    own, inputs = labels_of(name, settings=settings, features=features), Inputs(digits, observed, ExpertStore(tmp_path))
    features.build(inputs)
    own.build(inputs)
    said = own.describe(observed, None, tmp_path)
    assert ("robust_test_accuracy" in said) == (name == "c2d")
    assert {"accuracy_before", "accuracy_after", "auc"}.isdisjoint(said)


def test_what_is_said_of_cleaned_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images: kept and true, relabelled truly, relabelled wrongly, left out, kept with a wrong label."""
    own, true = labels_of(num_classes=2), torch.tensor([0, 1, 1, 0, 1])
    observed, hard = torch.tensor([0, 0, 1, 1, 0]), torch.tensor([0, 1, 0, 1, 0])
    kept = torch.tensor([True, True, True, False, True])
    confidence = torch.tensor([0.9, 0.2, 0.4, 0.1, 0.6])
    made = Cleaned(torch.full((5, 2), 0.5), hard, confidence, kept, 0.3, torch.eye(2).double())
    tensors, meta = made.to_tensors()
    monkeypatch.setattr(CleanedLabels, "read", lambda self, root: (tensors, meta | {"robust_test_accuracy": 0.8}))
    assert own.describe(observed, true, tmp_path) == {
        "cleaner": "coteaching",
        "rate": 0.3,
        "transition": [[1.0, 0.0], [0.0, 1.0]],
        "kept": 0.8,
        "relabelled": 0.5,
        "histogram": [3, 1],
        "robust_test_accuracy": 0.8,
        "accuracy_before": 0.4,
        "accuracy_after": 0.5,
        "auc": pytest.approx(5 / 6),  # of true 0.9, 0.4 over wrong 0.2, 0.1, 0.6 five pairs of six are in order
    }


def test_experts_learn_from_what_is_kept_with_its_new_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hard, kept = torch.tensor([1, 0, 1]), torch.tensor([False, True, True])
    for mask, rows in ((kept, [1, 2]), (torch.zeros(3, dtype=torch.bool), [0, 1, 2])):
        made = Cleaned(torch.full((3, 2), 0.5), hard, torch.ones(3), mask, 0.0, torch.eye(2))
        monkeypatch.setattr(CleanedLabels, "cleaned", lambda self, root, made=made: made)
        lesson = CleanedSource(labels_of()).open(tmp_path, torch.zeros(3), torch.zeros(3)).lesson(0, 0, None, None)  # type: ignore[arg-type]
        assert lesson.labels.tolist() == [1, 0, 1]
        assert lesson.rows is not None
        assert lesson.rows.tolist() == rows


def test_a_class_that_keeps_too_few_images_is_named() -> None:
    left = Trusted(torch.arange(5), torch.tensor([0, 0, 2, 2, 1]))
    left.require_enough("knn", ("cat", "dog", "owl"), 1)
    left.require_enough("knn", ("cat", "dog", "owl", "cow"), None)
    with pytest.raises(
        RequestError, match=r"knn leaves class 'dog' 1 training images, fewer than the ipc 2; .*knn\.sure"
    ):
        left.require_enough("knn", ("cat", "dog", "owl"), 2)
    with pytest.raises(RequestError, match=r"class 'cow' 0 training images"):
        left.require_enough("knn", ("cat", "dog", "owl", "cow"), 1)
    with pytest.raises(RequestError, match="knn keeps no image"):
        Trusted(torch.zeros(0).long(), torch.zeros(0).long()).require_enough("knn", ("cat",), None)
