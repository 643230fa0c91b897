"""CutMix: boxes and label weights worked out by hand, and the distribution of the draws against an enumeration."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import pytest
import torch
from torch import Tensor

from ddnl_ray.data import CutMix, CutMixDraw, mixing
from ddnl_ray.errors import RequestError


def numbered(num: int, size: int) -> Tensor:
    """Images of two channels whose pixels say whose they are."""
    return torch.arange(num, dtype=torch.float64).view(-1, 1, 1, 1).expand(num, 2, size, size).clone()


def always(generator: torch.Generator, num: int = 4, size: int = 8) -> CutMixDraw:
    draw = CutMix(1.0).draw(generator, num, size, "cpu")
    assert draw is not None
    return draw


def test_a_box_by_hand() -> None:
    draw = CutMixDraw(torch.tensor([2, 0, 1]), (1, 3), (0, 3), 1 - 6 / 16)
    x = numbered(3, 4)
    mixed = CutMix(0.5).apply(x, draw)
    pattern = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    for i, other in enumerate([2, 0, 1]):
        expected = torch.where(pattern, float(other), float(i)).double()
        assert torch.equal(mixed[i], expected.expand(2, 4, 4))
    assert torch.equal(x, numbered(3, 4))


@pytest.mark.parametrize("size", [7, 8, 32])
def test_a_draw_is_the_published_box(size: int) -> None:
    """From the same numbers: the side is size * sqrt(1 - lambda), half of it to either side, clipped at the border."""
    clipped = 0
    for seed in range(60):
        uniform = torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
        side = math.floor(size * math.sqrt(1 - uniform[1]))
        row, column = math.floor(size * uniform[2]), math.floor(size * uniform[3])
        inside = [
            (r, c)
            for r, c in product(range(size), repeat=2)
            if row - side // 2 <= r < row + side // 2 and column - side // 2 <= c < column + side // 2
        ]
        clipped += len(inside) < (2 * (side // 2)) ** 2
        draw = always(torch.Generator().manual_seed(seed), 2, size)
        assert draw.own == pytest.approx(1 - len(inside) / size**2, abs=1e-12)
        mark = CutMix(1.0).apply(numbered(2, size), CutMixDraw(torch.tensor([1, 0]), draw.rows, draw.columns, draw.own))
        assert sorted(map(tuple, mark[0, 0].nonzero().tolist())) == inside
    assert 20 < clipped < 60


def test_the_weight_is_the_share_of_pixels_that_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        draw = always(generator, 5, 9)
        mixed = CutMix(1.0).apply(numbered(5, 9), draw)
        for i, other in enumerate(draw.order.tolist()):
            share = float((mixed[i] == i).double().mean())
            assert share == pytest.approx(1.0 if other == i else draw.own, abs=1e-12)


def test_the_mean_weight_is_that_of_all_boxes() -> None:
    """Half a side is h with probability ((2h + 2)^2 - (2h)^2) / size^2, since the squared side ratio is uniform."""
    size, expected, second = 8, 0.0, 0.0
    for half in range(size // 2 + 1):
        chance = (min(2 * half + 2, size) ** 2 - (2 * half) ** 2) / size**2
        for centres in product(range(size), repeat=2):
            height, width = (min(c + half, size) - max(c - half, 0) for c in centres)
            own = 1 - height * width / size**2
            expected += chance * own / size**2
            second += chance * own**2 / size**2
    generator, num = torch.Generator().manual_seed(0), 4000
    found = sum(always(generator).own for _ in range(num)) / num
    assert abs(found - expected) < 4 * math.sqrt((second - expected**2) / num)


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.9, 1.0])
def test_a_batch_is_mixed_with_the_probability(probability: float) -> None:
    generator, num = torch.Generator().manual_seed(1), 2000
    found = sum(CutMix(probability).draw(generator, 2, 8, "cpu") is not None for _ in range(num)) / num
    assert abs(found - probability) <= 4 * math.sqrt(probability * (1 - probability) / num)


def test_partners_are_a_uniform_permutation() -> None:
    generator, num = torch.Generator().manual_seed(2), 2400
    orders = Counter(tuple(always(generator, 3).order.tolist()) for _ in range(num))
    assert len(orders) == 6
    for count in orders.values():
        assert abs(count - 400) < 4 * math.sqrt(num * 5 / 36)


def test_how_many_numbers_are_drawn_does_not_depend_on_the_outcome() -> None:
    states = []
    for probability in (0.0, 1.0):
        generator = torch.Generator().manual_seed(3)
        CutMix(probability).draw(generator, 5, 8, "cpu")
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_one_image_is_its_own_partner() -> None:
    x = numbered(1, 4) + torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(CutMix(1.0).apply(x, always(torch.Generator().manual_seed(0), 1, 4)), x)


def test_a_recipe_without_mixing_draws_nothing() -> None:
    assert mixing(0.0) is None
    assert mixing(0.5) == CutMix(0.5)


@pytest.mark.parametrize("probability", [-0.1, 1.5, math.nan])
def test_a_probability_lies_between_0_and_1(probability: float) -> None:
    with pytest.raises(RequestError, match=r"cutmix is a probability and must lie in \[0, 1\], but got"):
        mixing(probability)


def test_a_draw_for_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="the draw is for 4 images, but the batch has 3"):
        CutMix(1.0).apply(numbered(3, 8), always(torch.Generator().manual_seed(0), 4))
