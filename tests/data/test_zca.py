"""ZCA against kornia's and against the closed form of its eigenvalues."""

from __future__ import annotations

import kornia
import pytest
import torch

from ddnl_ray.data import Zca


@pytest.fixture
def images() -> torch.Tensor:
    """Correlated images in [0, 1]; more than one chunk of the covariance sum."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(5000, 12, generator=generator, dtype=torch.float64)
    mix = torch.rand(12, 48, generator=generator, dtype=torch.float64)
    return (flat @ mix / 12).view(-1, 3, 4, 4)


def test_equals_kornia(images: torch.Tensor) -> None:
    oracle = kornia.enhance.ZCAWhitening(eps=0.1, unbiased=True).fit(images)
    ours = Zca.fit(images)
    torch.testing.assert_close(ours.apply(images), oracle(images), atol=1e-6, rtol=0)


def test_eigenvalues_of_the_whitened_covariance(images: torch.Tensor) -> None:
    before = torch.linalg.eigvalsh(torch.cov(images.flatten(1).T))
    after = torch.linalg.eigvalsh(torch.cov(Zca.fit(images).apply(images).flatten(1).T))
    torch.testing.assert_close(after, before / (before + 0.1), atol=1e-6, rtol=0)


def test_whitened_images_have_mean_zero(images: torch.Tensor) -> None:
    assert Zca.fit(images).apply(images).mean(dim=0).abs().max() < 1e-6


def test_invert_undoes_apply_in_float32(images: torch.Tensor) -> None:
    zca, pixels = Zca.fit(images.float()), images.float()
    whitened = zca.apply(pixels)
    assert whitened.dtype == torch.float32
    assert whitened.shape == pixels.shape
    assert (zca.invert(whitened) - pixels).abs().max() < 1e-4


def test_fewer_images_than_pixels_still_invert(images: torch.Tensor) -> None:
    few = images[:5].float()
    zca = Zca.fit(few)
    assert (zca.invert(zca.apply(few)) - few).abs().max() < 1e-4


def test_the_order_of_images_does_not_matter(images: torch.Tensor) -> None:
    torch.testing.assert_close(Zca.fit(images).whiten, Zca.fit(images.flip(0)).whiten, atol=1e-6, rtol=0)


def test_the_relative_whitening_is_that_of_normalised_images() -> None:
    """Written out: normalise, centre, add a tenth of the mean variance, whiten; pixels go in and come out."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(200, 3, 3, 3, generator=generator).double() ** 2
    std = torch.tensor([0.2, 0.3, 0.4])
    flat = (pixels / std.double()[:, None, None]).flatten(1)
    centred = flat - flat.mean(0)
    covariance = centred.T @ centred / 200
    covariance += 0.1 * covariance.trace() / 27 * torch.eye(27).double()
    values, vectors = torch.linalg.eigh(covariance)
    expected = centred @ vectors @ values.rsqrt().diag() @ vectors.T
    zca = Zca.fit_relative(pixels, std)
    torch.testing.assert_close(zca.apply(pixels).flatten(1), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(zca.invert(zca.apply(pixels)), pixels, rtol=1e-4, atol=1e-5)


def test_directions_that_no_image_reaches_are_left_as_they_are() -> None:
    pixels = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    zca = Zca.fit_relative(pixels, torch.tensor([0.5]))
    values = torch.linalg.eigvalsh(0.5 * zca.whiten.double())
    assert int(((values - 1).abs() < 1e-4).sum()) >= 11
