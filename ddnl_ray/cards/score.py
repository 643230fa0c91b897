"""Training fresh networks on a card's set, and whether they reach what the card promises.

The card's recipe is used, on the test images that the card was scored on, with seeds of their own, so that the new
accuracies are further draws of what the card's mean was taken of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddnl_ray.card import Expected, expected, labels_sha256
from ddnl_ray.cards.read import Card
from ddnl_ray.data import BENCHMARKS, load, part_of_test
from ddnl_ray.errors import RequestError
from ddnl_ray.evaluate import EvalRecipe, Split, score, train
from ddnl_ray.experts.precision import products
from ddnl_ray.models import NetworkSpec
from ddnl_ray.seeds import SeedTree

LEVEL = 0.99
_INTERVAL = 0.975


@dataclass(frozen=True)
class SealedTest:
    """The test images of a card.

    Attributes:
        split: Transformed images and labels, on the device.
        note: What is not known of them; empty: they are those that the card was scored on.
    """

    split: Split
    note: str


@dataclass(frozen=True)
class Retrained:
    """The accuracies of networks of one kind.

    Attributes:
        network: Which network.
        accuracies: Of every network at its last epoch, 0 to 1.
        summary: Their mean with a 95 % Student interval.
    """

    network: NetworkSpec
    accuracies: tuple[float, ...]
    summary: Expected


@dataclass(frozen=True)
class Verdict:
    """Whether networks reach the accuracy that a card promises.

    Attributes:
        passed: Whether ``mean`` is at least ``bound``.
        mean: Mean accuracy of the new networks.
        n: How many they are.
        bound: The lowest mean that still passes.
        sd: Pooled standard deviation over networks.
        df: Its degrees of freedom.
        level: Probability with which the mean of a set that is as promised lies above the bound.
    """

    passed: bool
    mean: float
    n: int
    bound: float
    sd: float
    df: int
    level: float = LEVEL


def sealed_test(card: Card, data: str | None, root: Path | None, device: torch.device | str) -> SealedTest:
    """Read the test images of a card.

    Args:
        card: The card.
        data: The data set as sweep files name it; None: that of the card.
        root: The folder that holds the benchmarks.
        device: Where to put them.

    Raises:
        RequestError: The data are missing, or are not those of the card.
    """
    name = data or str(card.about["dataset"])
    if data is None and name not in BENCHMARKS:
        raise RequestError(
            f"the card was made of a {name} of images, but does not say where it is; name it with --data {name}:PATH"
        )
    shape = list(card.training.images.shape[1:])
    dataset = load(name, root, size=None if name in BENCHMARKS else shape[-1])
    if dataset.classes != card.classes:
        raise RequestError(
            f"{name} ({dataset.source}) has the classes {_few(dataset.classes)}, but the card has "
            f"{_few(card.classes)}; name the data of the card with --data and --root"
        )
    said = card.about.get("test")
    known = said or {"subset": None, "split_seed": 0}
    pixels, labels = part_of_test(dataset, known["subset"], known["split_seed"])
    if list(pixels.shape[1:]) != shape:
        raise RequestError(f"the images of {name} are {list(pixels.shape[1:])}, but those of the card are {shape}")
    note = ""
    if said is None:
        note = f"the card does not say which test images it was scored on: all {len(labels)} are used"
    elif labels_sha256(labels) != said["labels_sha256"]:
        raise RequestError(
            f"the test labels of {name} ({dataset.source}) are not those that the card was scored on; name the data "
            "of the card with --data and --root"
        )
    # On the CPU, as when the set was made.
    images = card.transform.to("cpu").apply(pixels)
    return SealedTest(Split(images.to(device), labels.to(device)), note)


def retrain(
    card: Card,
    recipe: EvalRecipe,
    network: NetworkSpec,
    test: Split,
    repeats: int,
    seed: int,
    on_score: Callable[[int, float], None] = lambda repeat, accuracy: None,
) -> Retrained:
    """Train networks from scratch on a card's set, and score each at its last epoch.

    Args:
        card: The card, on the device to train on.
        recipe: How to train.
        network: Which network.
        test: What to score on, on that device.
        repeats: How many networks.
        seed: Determines initialisations, orders and augmentations; they are none of those of the card's own networks.
        on_score: Told which network was scored, and its accuracy.

    Raises:
        RequestError: The network does not fit the images, or there are no repeats.
    """
    if repeats < 1:
        raise RequestError(f"--repeats must be at least 1, but got {repeats}")
    network.require_fits(card.input_shape)
    tree, found = SeedTree.root(seed).child("card", network.name, network.width or 0), []
    with products("float32", test.images.device):
        for repeat in range(repeats):
            model = train(card.training, recipe, network, len(card.classes), tree.child(repeat))
            accuracy, _ = score(model, test)
            found.append(accuracy)
            on_score(repeat, accuracy)
    return Retrained(network, tuple(found), expected("test", found))


def judge(promised: Mapping[str, Any], accuracies: Sequence[float], num_test: int) -> Verdict:
    """Return whether new networks reach a promised accuracy: a one-sided test with two samples at the 99 % level.

    With the promised mean of ``n`` networks and the mean of ``m`` new ones, the set passes unless the latter lies below
    ``promised - t sd sqrt(1/n + 1/m)``: the lower end of the prediction interval for the mean of ``m`` more networks.
    ``sd`` is pooled over the promised (from its 95 % interval) and the new networks, with ``n + m - 2`` degrees of
    freedom, because cards often promise the mean of two or three networks: their spread alone says next to nothing
    (Student's quantile is 31.8 for one degree of freedom), and that of one network nothing. It is at least the accuracy
    of one test image.

    Args:
        promised: ``expected_accuracy`` of the card.
        accuracies: Of the new networks, 0 to 1.
        num_test: Number of test images.

    Raises:
        RequestError: One network was promised and one is new, which have no spread.
    """
    from scipy import stats

    n, m = int(promised["n"]), len(accuracies)
    df = n + m - 2
    if df < 1:
        raise RequestError(
            "the card promises the accuracy of 1 network, and 1 new one has no spread to compare it with; use "
            "--repeats 3"
        )
    squares = float(np.var(accuracies)) * m
    if n > 1:
        half = (float(promised["high"]) - float(promised["low"])) / 2
        squares += (n - 1) * n * (half / float(stats.t.ppf(_INTERVAL, n - 1))) ** 2
    sd = max(math.sqrt(squares / df), 1 / num_test)
    margin = float(stats.t.ppf(LEVEL, df)) * sd * math.sqrt(1 / n + 1 / m)
    mean, bound = float(np.mean(accuracies)), float(promised["mean"]) - margin
    return Verdict(mean >= bound, mean, m, bound, sd, df)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
