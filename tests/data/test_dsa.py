"""DSA against a reference that works on one image at a time, in float64, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddnl_ray.data import OPERATIONS, Dsa, DsaDraw
from ddnl_ray.errors import RequestError


def sample(image: np.ndarray, col: float, row: float) -> np.ndarray:
    """Bilinear value of one image [C, H, H] at a point, with zeros outside."""
    size = image.shape[-1]
    total = np.zeros(len(image))
    left, top = math.floor(col), math.floor(row)
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < size and 0 <= c < size:
                total += (1 - abs(col - c)) * (1 - abs(row - r)) * image[:, r, c]
    return total


def reference(op: str, image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One operation of the published table on one image [C, H, H]."""
    size = image.shape[-1]
    out = np.zeros_like(image)
    first, second, third = (float(value) for value in values)
    if op == "color":
        out = image + first
        grey = out.mean(axis=0, keepdims=True)
        out = (out - grey) * second + grey
        return (out - out.mean()) * third + out.mean()
    if op == "flip":
        return image[:, :, ::-1].copy() if first == 1 else image
    if op == "cutout":
        out, side = image.copy(), int(size * 0.5 + 0.5)
        top, left = int(first) - side // 2, int(second) - side // 2
        for r in range(max(top, 0), min(top + side, size)):
            for c in range(max(left, 0), min(left + side, size)):
                out[:, r, c] = 0
        return out
    centre = (size - 1) / 2
    for r in range(size):
        for c in range(size):
            x, y = c - centre, r - centre
            if op == "crop":
                col, row = c + second, r + first
            elif op == "scale":
                col, row = first * x + centre, second * y + centre
            else:
                col = math.cos(first) * x - math.sin(first) * y + centre
                row = math.sin(first) * x + math.cos(first) * y + centre
            out[:, r, c] = sample(image, col, row)
    return out


def images(num: int = 5, channels: int = 3, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(num, channels, size, size, generator=generator, dtype=torch.float64)


def draw(op: str, num: int, size: int, seed: int = 0, siamese: bool = False) -> DsaDraw:
    generator = torch.Generator().manual_seed(seed)
    return Dsa(op).draw(generator, num, size, "cpu", siamese)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [6, 7])  # the cutout's side is odd, then even
@pytest.mark.parametrize("op", OPERATIONS)
def test_equals_the_reference(op: str, channels: int, size: int) -> None:
    x = images(channels=channels, size=size)
    for seed in range(4):
        record = draw(op, len(x), size, seed)
        expected = np.stack([reference(op, x[i].numpy(), record.values[:, i].double().numpy()) for i in range(len(x))])
        np.testing.assert_allclose(Dsa(op).apply(x, record).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("op", OPERATIONS)
def test_float32_agrees_with_float64(op: str) -> None:
    x, record = images(size=32), draw(op, 5, 32)
    result = Dsa(op).apply(x.float(), record)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), Dsa(op).apply(x, record), atol=3e-5, rtol=0)


@pytest.mark.parametrize("op", OPERATIONS)
def test_sixteen_bit_images_keep_their_type_and_exact_coordinates(op: str) -> None:
    x, record = images(size=64).bfloat16(), draw(op, 5, 64)
    result = Dsa(op).apply(x, record)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), Dsa(op).apply(x.double(), record), atol=0.05, rtol=0.01)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("op", ["scale", "rotate"])
def test_affine_equals_grid_sample_under_both_conventions(op: str, align_corners: bool) -> None:
    x, record = images(size=9), draw(op, 5, 9)
    a, b = record.values[:2].double()
    rows = [[a, 0 * a], [0 * a, b]] if op == "scale" else [[a.cos(), -a.sin()], [a.sin(), a.cos()]]
    matrix = torch.stack([torch.stack([*row, 0 * a], dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=align_corners)
    expected = F.grid_sample(x, grid, align_corners=align_corners)
    torch.testing.assert_close(Dsa(op).apply(x, record), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("siamese", [True, False])
def test_gradients_equal_finite_differences(op: str, siamese: bool) -> None:
    x = images(num=2, size=5).requires_grad_()
    record = draw(op, 2, 5, seed=3, siamese=siamese)
    assert torch.autograd.gradcheck(lambda x: Dsa(op).apply(x, record), (x,))


@pytest.mark.parametrize("op", OPERATIONS)
def test_second_derivatives_equal_finite_differences(op: str) -> None:
    x = images(num=2, channels=1, size=5).requires_grad_()
    record = draw(op, 2, 5, seed=3)
    assert torch.autograd.gradgradcheck(lambda x: Dsa(op).apply(x, record).pow(3), (x,))


@pytest.mark.parametrize(
    ("strategy", "strength"), [("scale", 2.5), ("scale", 1.0), ("rotate", 45.0), ("rotate", 180.0)]
)
def test_the_transpose_holds_at_unusual_strengths(strategy: str, strength: float) -> None:
    augment = Dsa(strategy, **{strategy: strength})
    x = images(num=6, channels=1, size=6).requires_grad_()
    record = augment.draw(torch.Generator().manual_seed(1), 6, 6, "cpu")
    assert torch.autograd.gradcheck(lambda x: augment.apply(x, record), (x,))


def test_vmap_gives_the_same_as_a_loop() -> None:
    x = torch.stack([images(), images() + 1])
    for op in OPERATIONS:
        record = draw(op, 5, 8)
        mapped = torch.func.vmap(lambda x, record=record: Dsa(record.op).apply(x, record))(x)
        torch.testing.assert_close(mapped, torch.stack([Dsa(op).apply(part, record) for part in x]))


@pytest.mark.parametrize("op", OPERATIONS)
def test_siamese_parameters_are_shared_and_fit_any_batch(op: str) -> None:
    record = draw(op, 5, 8, siamese=True)
    assert record.values.shape == (3, 1)
    x = images()
    whole = Dsa(op).apply(x, record)
    torch.testing.assert_close(whole[2:4], Dsa(op).apply(x[2:4], record), atol=0, rtol=0)


def test_parameters_differ_between_images() -> None:
    for op in set(OPERATIONS) - {"flip"}:
        assert len(draw(op, 50, 32).values[0].unique()) > 5


def test_equal_generators_give_equal_bits_and_others_differ() -> None:
    x, augment = images(), Dsa()
    results = [augment(x, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_stream_advances_equally_whatever_the_operation() -> None:
    states = []
    for strategy in ("color", "flip", "crop_cutout"):
        generator = torch.Generator().manual_seed(0)
        Dsa(strategy).draw(generator, 4, 8, "cpu")
        states.append(generator.get_state())
    assert all(torch.equal(states[0], state) for state in states)


def test_the_global_generator_is_untouched() -> None:
    before = torch.get_rng_state()
    Dsa()(images(), torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


def test_each_operation_is_drawn_equally_often() -> None:
    generator, augment = torch.Generator().manual_seed(0), Dsa()
    ops = [augment.draw(generator, 1, 8, "cpu").op for _ in range(6000)]
    for op in OPERATIONS:
        # Five standard deviations of a count with mean 1000.
        assert abs(ops.count(op) - 1000) < 5 * math.sqrt(6000 * 5 / 36)


@pytest.mark.parametrize(
    ("op", "row", "low", "high"),
    [
        ("color", 0, -0.5, 0.5),
        ("color", 1, 0, 2),
        ("color", 2, 0.5, 1.5),
        ("scale", 0, 1 / 1.2, 1.2),
        ("scale", 1, 1 / 1.2, 1.2),
        ("rotate", 0, -math.radians(15), math.radians(15)),
    ],
)
def test_continuous_parameters_are_uniform_on_the_published_interval(
    op: str, row: int, low: float, high: float
) -> None:
    values = draw(op, 20_000, 32).values[row]
    width = high - low
    assert low - 1e-6 <= values.min() < low + width / 1000
    assert high - width / 1000 < values.max() <= high + 1e-6
    assert abs(values.mean() - (low + high) / 2) < 5 * width / math.sqrt(12 * 20_000)


@pytest.mark.parametrize(
    ("op", "size", "expected"),
    [
        ("crop", 32, range(-4, 5)),
        ("crop", 64, range(-8, 9)),
        ("crop", 8, range(-1, 2)),
        ("cutout", 32, range(33)),
        ("cutout", 8, range(9)),
        ("cutout", 6, range(6)),  # side 3 is odd
        ("flip", 8, range(2)),
    ],
)
def test_whole_parameters_take_every_published_value_equally_often(op: str, size: int, expected: range) -> None:
    values = draw(op, 20_000, size).values[0].long()
    found, counts = values.unique(return_counts=True)
    assert found.tolist() == list(expected)
    mean = 20_000 / len(expected)
    assert (counts - mean).abs().max() < 5 * math.sqrt(mean)


def test_row_and_column_parameters_are_independent() -> None:
    for op in ("crop", "cutout", "scale"):
        values = draw(op, 20_000, 32).values
        assert abs(torch.corrcoef(values[:2])[0, 1]) < 0.04


def test_unknown_and_repeated_operations_are_refused() -> None:
    with pytest.raises(RequestError, match="unknown augmentation operation 'colour': did you mean 'color'"):
        Dsa("colour_crop")
    with pytest.raises(RequestError, match="unknown augmentation operation ''"):
        Dsa("")
    with pytest.raises(RequestError, match="unknown augmentation operation 'none'"):
        Dsa("none")
    with pytest.raises(RequestError, match="names each operation once, but got 'flip_crop_flip'"):
        Dsa("flip_crop_flip")
    with pytest.raises(RequestError, match=r"scale must be >= 1, but got 0\.8"):
        Dsa(scale=0.8)


def test_a_draw_for_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="the draw is for 4 images, but the batch has 5"):
        Dsa("flip").apply(images(), draw("flip", 4, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("op", OPERATIONS)
def test_gpu_agrees_with_cpu_and_repeats_its_gradient_bits(op: str) -> None:
    augment, x = Dsa(op), images(num=64, size=32).float()
    record = augment.draw(torch.Generator().manual_seed(0), 64, 32, "cuda")
    on_cpu = DsaDraw(op, record.values.cpu())
    assert torch.equal(on_cpu.values, draw(op, 64, 32).values)
    gradients = []
    for _ in range(3):
        leaf = x.cuda().requires_grad_()
        result = augment.apply(leaf, record)
        (result * result.detach()).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(result.cpu(), augment.apply(x, on_cpu), atol=3e-5, rtol=1e-4)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
