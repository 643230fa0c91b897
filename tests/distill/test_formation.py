"""Partition and multi-formation against torch's own interpolation and by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ddnl_ray.distill.base import Distilled
from ddnl_ray.distill.formation import decode, encode


def images(n: int, size: int) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("factor", "size"), [(2, 8), (2, 32), (3, 9), (4, 8)])
def test_each_crop_is_enlarged_bilinearly_in_row_order(factor: int, size: int) -> None:
    stored, side = images(3, size), size // factor
    expected = []
    for image in stored:
        for row in range(factor):
            for column in range(factor):
                crop = image[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
                expected.append(F.interpolate(crop[None], size=size, mode="bilinear", align_corners=False)[0])
    torch.testing.assert_close(decode(stored, factor), torch.stack(expected))


def test_quarters_of_one_value_become_images_of_one_value() -> None:
    stored = torch.zeros(1, 1, 4, 4)
    stored[0, 0, :2, 2:], stored[0, 0, 2:, :2], stored[0, 0, 2:, 2:] = 1.0, 2.0, 3.0
    assert torch.equal(decode(stored, 2), torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 4, 4))


def test_odd_sizes_repeat_the_border() -> None:
    stored = images(2, 7)
    padded = torch.cat([stored, stored[..., -1:]], dim=3)
    padded = torch.cat([padded, padded[:, :, -1:]], dim=2)
    crop = padded[1, :, 4:, 4:]
    expected = F.interpolate(crop[None], size=7, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(decode(stored, 2)[-1], expected)


def test_factor_1_changes_nothing() -> None:
    stored = images(2, 5)
    assert decode(stored, 1) is stored
    again = encode(stored, 1, "nearest")
    assert torch.equal(again, stored)
    assert again.data_ptr() != stored.data_ptr()


def test_encoding_takes_the_mean_of_2_by_2_pixels_or_the_first() -> None:
    given = images(4, 8)
    mean, first = encode(given, 2, "bilinear"), encode(given, 2, "nearest")
    torch.testing.assert_close(mean[0, :, :4, 4:], F.avg_pool2d(given[1:2], 2)[0])
    assert torch.equal(first[0, :, 4:, :4], given[2, :, ::2, ::2])
    assert mean.shape == first.shape == (1, 3, 8, 8)


def test_encoding_odd_sizes_drops_the_last_row_and_column() -> None:
    assert encode(images(4, 7), 2, "nearest").shape == (1, 3, 7, 7)


def test_the_gradient_of_decoding_is_exact() -> None:
    stored = images(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: decode(x, 2), stored)


def test_a_decoded_set_repeats_its_labels() -> None:
    kept = Distilled(images(2, 8), torch.tensor([4, 7]), 0.5, factor=2)
    decoded = kept.decoded()
    assert decoded.labels.tolist() == [4] * 4 + [7] * 4
    assert (decoded.factor, decoded.step_size, len(decoded.images)) == (1, 0.5, 8)
    soft = Distilled(images(2, 8), torch.tensor([[0.9, 0.1], [0.2, 0.8]]), factor=2).decoded().labels
    assert torch.equal(soft[3], torch.tensor([0.9, 0.1]))
    assert torch.equal(soft[4], torch.tensor([0.2, 0.8]))
