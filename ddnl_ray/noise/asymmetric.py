"""Asymmetric label noise: a class is mistaken for one that looks like it, by the map of the data set."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ddnl_ray.errors import RequestError

CIFAR100_SUPERCLASSES = (
    (4, 30, 55, 72, 95),  # aquatic mammals: beaver, dolphin, otter, seal, whale
    (1, 32, 67, 73, 91),  # fish: aquarium_fish, flatfish, ray, shark, trout
    (54, 62, 70, 82, 92),  # flowers: orchid, poppy, rose, sunflower, tulip
    (9, 10, 16, 28, 61),  # food containers: bottle, bowl, can, cup, plate
    (0, 51, 53, 57, 83),  # fruit and vegetables: apple, mushroom, orange, pear, sweet_pepper
    (22, 39, 40, 86, 87),  # household electrical devices: clock, keyboard, lamp, telephone, television
    (5, 20, 25, 84, 94),  # household furniture: bed, chair, couch, table, wardrobe
    (6, 7, 14, 18, 24),  # insects: bee, beetle, butterfly, caterpillar, cockroach
    (3, 42, 43, 88, 97),  # large carnivores: bear, leopard, lion, tiger, wolf
    (12, 17, 37, 68, 76),  # large man-made outdoor things: bridge, castle, house, road, skyscraper
    (23, 33, 49, 60, 71),  # large natural outdoor scenes: cloud, forest, mountain, plain, sea
    (15, 19, 21, 31, 38),  # large omnivores and herbivores: camel, cattle, chimpanzee, elephant, kangaroo
    (34, 63, 64, 66, 75),  # medium-sized mammals: fox, porcupine, possum, raccoon, skunk
    (26, 45, 77, 79, 99),  # non-insect invertebrates: crab, lobster, snail, spider, worm
    (2, 11, 35, 46, 98),  # people: baby, boy, girl, man, woman
    (27, 29, 44, 78, 93),  # reptiles: crocodile, dinosaur, lizard, snake, turtle
    (36, 50, 65, 74, 80),  # small mammals: hamster, mouse, rabbit, shrew, squirrel
    (47, 52, 56, 59, 96),  # trees: maple_tree, oak_tree, palm_tree, pine_tree, willow_tree
    (8, 13, 48, 58, 90),  # vehicles 1: bicycle, bus, motorcycle, pickup_truck, train
    (41, 69, 81, 85, 89),  # vehicles 2: lawn_mower, rocket, streetcar, tank, tractor
)
"""The fine classes of each CIFAR-100 superclass, in ascending (which is alphabetical) order."""

_MOUSE = 50


def _rings(superclasses: tuple[tuple[int, ...], ...]) -> dict[int, int]:
    """Return the map of every fine class to the next of its superclass, the last to the first."""
    return {a: b for ring in superclasses for a, b in pairwise((*ring, ring[0]))}


MAPS: dict[str, tuple[str, dict[int, int]]] = {
    # truck -> automobile, bird -> airplane, cat <-> dog, deer -> horse
    "ddlnl": ("cifar10", {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}),
    # the same without dog -> cat
    "tad": ("cifar10", {9: 1, 2: 0, 3: 5, 4: 7}),
    "superclass": ("cifar100", _rings(CIFAR100_SUPERCLASSES)),
    "ddlnl_compat": (
        "cifar100",
        _rings(tuple(tuple(fine for fine in ring if fine != _MOUSE) for ring in CIFAR100_SUPERCLASSES)),
    ),
}
"""Name of a map to the data set it is for and its class-to-class table."""

DEFAULT_MAPS = {"cifar10": "ddlnl", "cifar100": "superclass"}
"""The map that is used where none is named."""


def asymmetric(rate: float, dataset: str, map_name: str | None = None) -> NDArray[np.float64]:
    """Return the transition matrix of semantic asymmetric noise, shape ``(C, C)``, rows true class.

    ``T[y, map(y)] = rate`` and ``T[y, y] = 1 - rate`` for the classes of the map; the other classes are
    untouched. The rate is that of an affected class: CIFAR-10 has a share of ``rate / 2`` wrong labels with
    ``ddlnl`` (Cheng et al. 2024, the usual map since Patrini et al. 2017) and ``0.4 * rate`` with ``tad`` (Wu
    et al. 2025); CIFAR-100 has ``rate`` with ``superclass``, and ``0.99 * rate`` with ``ddlnl_compat``, which
    repeats a defect of the DD_LNL code: its small mammals lack the mouse, which is then never corrupted.

    Args:
        rate: Probability that a label of an affected class is flipped, in ``[0, 1)``.
        dataset: ``cifar10`` or ``cifar100``.
        map_name: A key of :data:`MAPS`; ``None`` is the data set's default.

    Raises:
        RequestError: The data set has no map, or the map is another data set's.
    """
    if dataset not in DEFAULT_MAPS:
        raise RequestError(
            f"asymmetric noise needs a map between similar classes, and only {' and '.join(DEFAULT_MAPS)} "
            f"have one, but the data set is {dataset!r}; use kind: pairflip, or kind: transition with a "
            "matrix of your own"
        )
    name = map_name or DEFAULT_MAPS[dataset]
    owner, table = MAPS[name]
    if owner != dataset:
        own = ", ".join(key for key, (data, _) in MAPS.items() if data == dataset)
        raise RequestError(f"map {name!r} is for {owner}, but the data set is {dataset}; its maps are {own}")
    matrix = np.eye(10 if dataset == "cifar10" else 100)
    for source, target in table.items():
        matrix[source, source] = 1 - rate
        matrix[source, target] = rate
    return matrix
