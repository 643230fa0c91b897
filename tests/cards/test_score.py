"""New networks are trained as the card's own were, and judged by a t-test."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ddnl_ray.card import expected, seal
from ddnl_ray.cards import Card, judge, read_card, retrain, sealed_test
from ddnl_ray.data import load as load_data
from ddnl_ray.data import part_of_test
from ddnl_ray.errors import RequestError
from ddnl_ray.evaluate import score, train
from ddnl_ray.files import write_json, write_tensors
from ddnl_ray.seeds import SeedTree

STRANGER = Path(__file__).parents[1] / "stranger.py"


@pytest.fixture(scope="module")
def read(finished: Path) -> Card:
    return read_card(finished)


def promise(accuracies: list[float]) -> dict[str, object]:
    return vars(expected("test", accuracies))


def test_with_the_trials_own_seeds_the_promise_comes_out_exactly(read: Card) -> None:
    """So the test images, the recipe, the network and the set are those of the trial."""
    test = sealed_test(read, None, None, "cpu")
    assert (test.note, len(test.split.labels)) == ("", 200)
    tree = SeedTree.root(0).child("noise", 0, "evaluate", read.network.name)
    found = [score(train(read.training, read.recipe, read.network, 10, tree.child(i)), test.split)[0] for i in range(3)]
    assert np.mean(found) == pytest.approx(read.about["expected_accuracy"]["mean"], abs=1e-12)


def test_new_networks_are_others_and_a_seed_gives_them_again(read: Card) -> None:
    split = sealed_test(read, None, None, "cpu").split
    told: list[int] = []
    first = retrain(read, read.recipe, read.network, split, 2, 0, lambda repeat, accuracy: told.append(repeat))
    assert told == [0, 1]
    assert first == retrain(read, read.recipe, read.network, split, 2, 0)
    assert first.accuracies != retrain(read, read.recipe, read.network, split, 2, 1).accuracies
    assert first.summary.mean == pytest.approx(np.mean(first.accuracies))
    with pytest.raises(RequestError, match="--repeats must be at least 1"):
        retrain(read, read.recipe, read.network, split, 0, 0)


def test_other_data_than_the_cards_are_refused(card: Path, tmp_path: Path) -> None:
    about = json.loads((card / "card.json").read_text())
    write_json(card / "card.json", seal(about | {"test": about["test"] | {"split_seed": 1}}))
    with pytest.raises(RequestError, match="are not those that the card was scored on"):
        sealed_test(read_card(card), None, None, "cpu")
    write_json(card / "card.json", seal(about | {"classes": [f"c{i}" for i in range(10)]}))
    with pytest.raises(RequestError, match=r"has the classes 0, 1, 2, 3, 4, ... \(10\), but the card has c0, c1"):
        sealed_test(read_card(card), None, None, "cpu")
    del about["test"]
    write_json(card / "card.json", seal(about))
    test = sealed_test(read_card(card), None, None, "cpu")
    assert (len(test.split.labels), test.note) == (
        360,
        "the card does not say which test images it was scored on: all 360 are used",
    )
    write_json(card / "card.json", seal(about | {"dataset": "folder", "config": {}}))
    with pytest.raises(RequestError, match="name it with --data folder:PATH"):
        sealed_test(read_card(card), None, None, "cpu")


ACCURACIES = st.lists(st.floats(0.1, 0.9), min_size=2, max_size=6)


@given(ACCURACIES, ACCURACIES)
def test_the_verdict_is_that_of_a_one_sided_t_test(old: list[float], new: list[float]) -> None:
    verdict = judge(promise(old), new, num_test=10**9)
    if verdict.sd < 1e-6 or math.isclose(verdict.mean, verdict.bound, rel_tol=1e-9):
        return
    moments = [part for values in (new, old) for part in (np.mean(values), np.std(values, ddof=1), len(values))]
    p = stats.ttest_ind_from_stats(*moments, alternative="less").pvalue
    assert verdict.passed == (p >= 0.01)
    assert verdict.df == len(old) + len(new) - 2


def test_one_promised_network_takes_the_spread_of_the_new_ones() -> None:
    verdict = judge(promise([0.8]), [0.79, 0.81], num_test=1000)
    assert verdict.sd == pytest.approx(0.01 * math.sqrt(2))
    assert verdict.bound == pytest.approx(0.8 - stats.t.ppf(0.99, 1) * verdict.sd * math.sqrt(1.5))
    with pytest.raises(RequestError, match="use --repeats 3"):
        judge(promise([0.8]), [0.8], num_test=1000)


def test_accuracies_without_spread_may_differ_by_a_test_image_or_two() -> None:
    assert judge(promise([0.8, 0.8]), [0.799, 0.799], num_test=1000).passed
    assert not judge(promise([0.8, 0.8]), [0.79, 0.79], num_test=1000).passed


def test_a_stranger_reaches_the_promise_with_torch_safetensors_and_json_alone(
    read: Card, finished: Path, tmp_path: Path
) -> None:
    pixels, labels = part_of_test(load_data("digits"), 200, 0)
    write_tensors(tmp_path / "test.safetensors", {"images": pixels, "labels": labels})
    alone = f"""
import runpy, sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ddnl_ray", "analysis"):
            raise ImportError(name)
sys.meta_path.insert(0, Closed())
sys.argv = ["stranger.py", {str(finished)!r}, {str(tmp_path / "test.safetensors")!r}]
runpy.run_path({str(STRANGER)!r}, run_name="__main__")
assert "ddnl_ray" not in sys.modules
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", alone]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    accuracies = json.loads(done.stdout)
    promised = read.about["expected_accuracy"]
    verdict = judge(promised, accuracies, 200)
    assert verdict.passed, verdict
    assert promised["low"] <= verdict.mean <= promised["high"]
