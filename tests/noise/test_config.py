from __future__ import annotations

import re

import pytest

from ddnl_ray.errors import RequestError
from ddnl_ray.noise import NoiseConfig

MATRIX = ((0.9, 0.1), (0.25, 0.75))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "symetric", "rate": 0.2}, "unknown noise kind 'symetric': did you mean 'symmetric'"),
        ({"kind": "symmetric", "rate": 1.2}, "noise rate must be in [0, 1), but got 1.2"),
        ({"kind": "symmetric", "rate": 1.0}, "noise rate must be in [0, 1), but got 1.0"),
        ({"kind": "pairflip", "rate": -0.1}, "noise rate must be in [0, 1), but got -0.1"),
        ({"kind": "pairflip", "rate": float("nan")}, "noise rate must be in [0, 1), but got nan"),
        ({"kind": "asymmetric"}, "noise of kind asymmetric needs rate, as in rate: 0.4"),
        ({"kind": "none", "rate": 0.2}, "kind none has no rate, but got rate: 0.2; it takes no options"),
        ({"kind": "natural", "labels": "worse", "rate": 0.4}, "kind natural has no rate"),
        ({"kind": "natural"}, "noise of kind natural needs labels"),
        ({"kind": "natural", "labels": "worst"}, "unknown label set 'worst': did you mean 'worse'"),
        ({"kind": "symmetric", "rate": 0.2, "map": "tad"}, "has no map, but got map: tad; it takes rate"),
        ({"kind": "asymmetric", "rate": 0.2, "map": "ddlnk"}, "map 'ddlnk': did you mean 'ddlnl'"),
        ({"kind": "transition"}, "needs either file or matrix, but got neither"),
        ({"kind": "transition", "file": "t.csv", "matrix": MATRIX}, "but got file and matrix"),
        ({"kind": "transition", "matrix": ((0.9, 0.2), (0.5, 0.5))}, "row 0 sums to 1.1"),
    ],
)
def test_wrong_requests_are_refused_when_they_are_made(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        NoiseConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "slug"),
    [
        (NoiseConfig(), "none"),
        (NoiseConfig("symmetric", 0.6), "symmetric-0.6"),
        (NoiseConfig("symmetric", 0), "symmetric-0.0"),
        (NoiseConfig("pairflip", 0.4), "pairflip-0.4"),
        (NoiseConfig("asymmetric", 0.4), "asymmetric-0.4"),
        (NoiseConfig("asymmetric", 0.4, map="ddlnl"), "asymmetric-0.4"),
        (NoiseConfig("asymmetric", 0.4, map="tad"), "asymmetric-0.4-tad"),
        (NoiseConfig("asymmetric", 0.4, map="ddlnl_compat"), "asymmetric-0.4-ddlnl_compat"),
        (NoiseConfig("natural", labels="worse"), "natural-worse"),
    ],
)
def test_slugs(config: NoiseConfig, slug: str) -> None:
    assert config.slug() == slug


def test_slugs_of_matrices_follow_their_content() -> None:
    slug = NoiseConfig("transition", matrix=MATRIX).slug()
    assert re.fullmatch(r"transition-[0-9a-f]{8}", slug)
    assert NoiseConfig("transition", matrix=((0.9, 0.1), (0.25, 0.75))).slug() == slug
    assert NoiseConfig("transition", matrix=((1, 0), (0, 1))).slug() != slug


def test_slugs_tell_nearby_rates_apart() -> None:
    assert NoiseConfig("symmetric", 0.12345678).slug() != NoiseConfig("symmetric", 0.12345679).slug()
