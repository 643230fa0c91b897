"""Products with a Jacobian: against loops over images and weights, with and without tapes, in parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from ddnl_ray.distill import linearised
from ddnl_ray.distill.linearised import Linearised, along, back, images_gradient
from ddnl_ray.models import DoublingConvNet, Flat, NetworkSpec, build

ROOMY = 2**30


def network(name: str = "doubling2", width: int = 3) -> Flat:
    module = build(NetworkSpec(name, width), (2, 6, 6), 3, torch.Generator().manual_seed(0)).double()
    return Flat(module.smoothed(5.0) if isinstance(module, DoublingConvNet) else module)


def draws(flat: Flat, num: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, images, a vector and a cotangent."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(flat.num_params,), (num, 2, 6, 6), (flat.num_params,), (num, 3)]
    noise, images, vector, cotangent = (torch.randn(shape, generator=generator).double() for shape in shapes)
    return flat.flatten() + 0.1 * noise, images, vector, cotangent


def jacobian(flat: Flat, theta: Tensor, images: Tensor) -> Tensor:
    """The Jacobian [N, classes, P], one image after the other."""
    return torch.stack([jacrev(lambda weights: flat(weights, x[None])[0])(theta) for x in images])  # noqa: B023


@pytest.mark.parametrize("name", ["doubling2", "convnet1"])
@pytest.mark.parametrize("memory", [0, 1, ROOMY])
@pytest.mark.parametrize("each", [1, 3, 100])
def test_products_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch, name: str, memory: int, each: int) -> None:
    monkeypatch.setattr(linearised, "part_size", lambda *_: each)
    flat = network(name)
    theta, images, vector, cotangent = draws(flat)
    matrix = jacobian(flat, theta, images)
    made = Linearised(flat, theta, images, memory)
    assert made.kept == (4 if memory == ROOMY else 0)
    torch.testing.assert_close(made.push(vector), matrix @ vector)
    torch.testing.assert_close(made.pull(cotangent), torch.einsum("ncp,nc->p", matrix, cotangent))
    torch.testing.assert_close(made.pull(cotangent), torch.einsum("ncp,nc->p", matrix, cotangent))
    torch.testing.assert_close(made.features, flat.outputs(theta, images).features)


def test_as_many_parts_keep_their_tapes_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearised, "part_size", lambda *_: 1)
    flat = network()
    theta, images, vector, _ = draws(flat)
    whole = Linearised(flat, theta, images, ROOMY)
    _, held = linearised._tape(flat, theta, images[:1])
    assert held > 4 * images[0].nbytes
    some = Linearised(flat, theta, images, 2 * held)
    assert some.kept == 2
    torch.testing.assert_close(some.push(vector), whole.push(vector))
    assert Linearised(flat, theta, images, ROOMY, smaller=1).kept == 0


def test_forward_and_backward_products_are_transposes() -> None:
    flat = network()
    theta, images, vector, cotangent = draws(flat)
    features, pushed = along(flat, theta, images, vector)
    torch.testing.assert_close((pushed * cotangent).sum(), back(flat, theta, images, cotangent) @ vector)
    assert features.shape == (4, 6)


@pytest.mark.parametrize("each", [1, 100])
def test_the_images_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch, each: int) -> None:
    monkeypatch.setattr(linearised, "part_size", lambda *_: each)
    flat = network()
    theta, images, vector, cotangent = draws(flat)
    other, weights = vector.flip(0), torch.randn(4, 6, generator=torch.Generator().manual_seed(3)).double()

    def value(x: Tensor) -> float:
        features, first = along(flat, theta, x, vector)
        second = along(flat, theta, x, other)[1]
        return float((features * weights).sum() + (first * cotangent).sum() - 2 * (second * cotangent).sum())

    found = images_gradient(flat, theta, images, weights, [(vector, cotangent), (other, -2 * cotangent)])
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(2)).double()
    step = 1e-5
    slope = (value(images + step * direction) - value(images - step * direction)) / (2 * step)
    assert float((found * direction).sum()) == pytest.approx(slope, rel=1e-6)
