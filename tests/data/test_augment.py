"""The IDC pipeline against one written with torch's own sampling, and class-wise draws against class by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddnl_ray.data import Augment, DiffAug, Dsa, DsaDraw, apply_classes, augmentation, draw_classes
from ddnl_ray.data.augment import apply_grouped
from ddnl_ray.errors import RequestError

ALL = "color_crop_cutout_flip_scale_rotate"
BOTH: list[Augment] = [Dsa(ALL), DiffAug(ALL)]


def images(num: int = 5, size: int = 8, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(num, channels, size, size, generator=generator, dtype=torch.float64)


def written_out(image: Tensor, ops: list[str], values: list[list[float]]) -> Tensor:
    """The operations one after the other on one image [C, H, H]; crops by padding, the rest by torch's sampling."""
    size = image.shape[-1]
    for op, (first, second, third) in zip(ops, values, strict=True):
        if op == "flip":
            image = image.flip(-1) if first else image
        elif op == "color":
            image = image + first
            grey = image.mean(0)
            image = grey + second * (image - grey)
            image = image.mean() + third * (image - image.mean())
        elif op == "crop":
            reach = math.floor(0.125 * size + 0.5)
            top, left = reach + int(first), reach + int(second)
            image = F.pad(image, (reach,) * 4)[:, top : top + size, left : left + size]
        elif op == "cutout":
            side = math.floor(0.5 * size + 0.5)
            top, left = int(first) - side // 2, int(second) - side // 2
            image = image.clone()
            image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        else:
            cos, sin = math.cos(first), math.sin(first)
            rows = [[first, 0, 0], [0, second, 0]] if op == "scale" else [[cos, -sin, 0], [sin, cos, 0]]
            grid = F.affine_grid(torch.tensor([rows], dtype=image.dtype), [1, *image.shape], align_corners=False)
            image = F.grid_sample(image[None], grid, align_corners=False)[0]
    return image


@pytest.mark.parametrize("siamese", [False, True])
@pytest.mark.parametrize("strategy", [ALL, "color_crop_cutout", "cutout", "rotate_flip", "scale_color"])
def test_the_pipeline_is_its_operations_one_after_the_other(strategy: str, siamese: bool) -> None:
    x, augment, seen = images(), DiffAug(strategy), set()
    for seed in range(8):
        record = augment.draw(torch.Generator().manual_seed(seed), len(x), 8, "cpu", siamese)
        found = augment.apply(x, record)
        ops = [own.op for own in record]
        seen.update(ops)
        for i in range(len(x)):
            values = [own.values[:, 0 if siamese else i].double().tolist() for own in record]
            torch.testing.assert_close(found[i], written_out(x[i], ops, values), rtol=0, atol=1e-10)
    assert seen == set(strategy.split("_"))


@pytest.mark.parametrize("strategy", [ALL, "flip_color_crop_scale_rotate_cutout"])
def test_flip_and_colour_come_first_then_one_move_then_the_cutout(strategy: str) -> None:
    generator, moves = torch.Generator().manual_seed(0), Counter[str]()
    for _ in range(3000):
        first, second, third, fourth = DiffAug(strategy).draw(generator, 1, 8, "cpu")
        assert (first.op, second.op, fourth.op) == ("flip", "color", "cutout")
        moves[third.op] += 1
    assert set(moves) == {"crop", "scale", "rotate"}
    for count in moves.values():  # 1000 expected, standard deviation 26
        assert abs(count - 1000) < 4 * math.sqrt(3000 * 2 / 9)


def test_the_order_of_the_strategy_says_nothing() -> None:
    one, other = (
        DiffAug(strategy)(images(), torch.Generator().manual_seed(3))
        for strategy in (ALL, "flip_color_crop_scale_rotate_cutout")
    )
    assert torch.equal(one, other)
    turned = "_".join(reversed(ALL.split("_")))
    assert torch.equal(one, DiffAug(turned)(images(), torch.Generator().manual_seed(3)))
    assert not torch.equal(one, DiffAug(turned)(images(), torch.Generator().manual_seed(4)))


def test_parameters_are_per_image_or_siamese() -> None:
    augment, generator = DiffAug(ALL), torch.Generator().manual_seed(0)
    for own in augment.draw(generator, 6, 8, "cpu"):
        assert own.values.shape == (3, 6)
    colours = augment.draw(generator, 6, 8, "cpu")[1].values[0]
    assert len(colours.unique()) == 6
    shared = augment.draw(generator, 6, 8, "cpu", siamese=True)
    assert all(own.values.shape == (3, 1) for own in shared)
    x = images()
    torch.testing.assert_close(augment.apply(x, shared)[1:3], augment.apply(x[1:3], shared), rtol=0, atol=1e-12)


@pytest.mark.parametrize("siamese", [False, True])
def test_how_many_numbers_are_drawn_does_not_depend_on_what_is_drawn(siamese: bool) -> None:
    """Strategies with as many stages and other choices leave the generator in the same state."""
    states, drawn = [], set()
    for strategy in ("color_crop", "color_scale", "flip_crop_scale_rotate"):
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            drawn.add(DiffAug(strategy).draw(generator, 5, 8, "cpu", siamese)[1].op)
            states.append((seed, generator.get_state()))
    assert drawn == {"crop", "scale", "rotate"}
    for seed in range(4):
        own = [state for other, state in states if other == seed]
        assert all(torch.equal(one, other) for one, other in pairwise(own))


def test_the_pipeline_can_be_differentiated_twice() -> None:
    x, augment = images(2, 4).requires_grad_(), DiffAug(ALL)
    for seed in range(3):
        record = augment.draw(torch.Generator().manual_seed(seed), 2, 4, "cpu")
        assert torch.autograd.gradcheck(lambda x, record=record: augment.apply(x, record), (x,))
        assert torch.autograd.gradgradcheck(lambda x, record=record: augment.apply(x, record).pow(2), (x,))


def test_global_generators_are_left_alone(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    runs = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            generator = torch.Generator().manual_seed(0)
            draws = draw_classes(DiffAug(ALL), generator, 2, 8, "cpu")
            runs.append((DiffAug(ALL)(images(), generator), apply_classes(DiffAug(ALL), images(), [2, 3], draws)))
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_the_forms_of_a_strategy() -> None:
    assert augmentation(None) is None
    assert augmentation("color_crop") == Dsa("color_crop")
    assert augmentation("diffaug:color_crop") == DiffAug("color_crop")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("colour_crop", r"augmentation 'colour_crop': unknown augmentation operation 'colour': did you mean 'color'\?"),
        ("", "augmentation '': unknown augmentation operation ''"),
        ("diffaug:", "augmentation 'diffaug:': unknown augmentation operation ''"),
        ("diffaug:flip_blur", "'diffaug:flip_blur': unknown augmentation operation 'blur'"),
        ("diffaug:flip_crop_flip", "names each operation once, but got 'flip_crop_flip'"),
        ("idc:flip", "unknown augmentation operation 'idc:flip'"),
    ],
)
def test_other_forms_are_refused_and_the_known_ones_named(strategy: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        augmentation(strategy)
    assert "known forms: null, operations joined by '_' as in 'color_crop'" in str(caught.value)
    assert "'diffaug:color_crop'" in str(caught.value)


def test_a_draw_for_another_pipeline_or_batch_is_refused() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="zip"):
        DiffAug("flip_crop").apply(images(), DiffAug("crop").draw(generator, 5, 8, "cpu"))
    with pytest.raises(ValueError, match="the draw is for 4 images, but the batch has 5"):
        DiffAug("flip_crop").apply(images(), DiffAug("flip_crop").draw(generator, 4, 8, "cpu"))


# --- one draw per class --------------------------------------------------------------------------------------------

COUNTS = [3, 1, 0, 4, 2, 3, 1, 5, 2, 2]


def class_by_class(augment: Augment, x: Tensor, counts: list[int], draws: list[Any]) -> Tensor:
    return torch.cat([augment.apply(own, draw) for own, draw in zip(x.split(counts), draws, strict=True)])


def operations(draw: Any) -> tuple[str, ...]:
    return tuple(own.op for own in draw) if isinstance(draw, tuple) else (draw.op,)


@pytest.mark.parametrize("augment", BOTH, ids=["dsa", "diffaug"])
@pytest.mark.parametrize("counts", [COUNTS, [7] * 10, [1] * 10])
def test_classes_together_are_classes_one_by_one(augment: Augment, counts: list[int]) -> None:
    """Values and gradients to the last bit, but for sums over an image, whose order the batch decides."""
    seen = set()
    for seed in range(4):
        draws = draw_classes(augment, torch.Generator().manual_seed(seed), len(counts), 8, "cpu")
        seen.update(op for draw in draws for op in operations(draw))
        weights = torch.randn(sum(counts), 3, 8, 8, generator=torch.Generator().manual_seed(9))
        results = []
        for apply in (apply_grouped, apply_classes, class_by_class):
            x = images(sum(counts)).float().requires_grad_()
            result = apply(augment, x, counts, draws)
            (gradient,) = torch.autograd.grad((result * weights).sum(), x)
            results.append((result.detach(), gradient))
        summed = [isinstance(augment, DiffAug) or draw.op == "color" for draw in draws]
        grouped, in_turn, alone = results
        for found, expected in [*zip(grouped, alone, strict=True), *zip(in_turn, alone, strict=True)]:
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
            for own, other, is_sum in zip(found.split(counts), expected.split(counts), summed, strict=True):
                assert is_sum or torch.equal(own, other)
    assert seen == set(ALL.split("_"))


@pytest.mark.parametrize("strategy", ["crop_cutout_flip", "flip_crop_scale_rotate_cutout"])
def test_a_pipeline_without_sums_is_the_same_to_the_last_bit(strategy: str) -> None:
    augment, x = DiffAug(strategy), images(sum(COUNTS)).float()
    draws = draw_classes(augment, torch.Generator().manual_seed(0), len(COUNTS), 8, "cpu")
    assert torch.equal(apply_grouped(augment, x, COUNTS, draws), class_by_class(augment, x, COUNTS, draws))


def test_real_and_synthetic_images_of_a_class_get_the_same() -> None:
    """One image in every place of both batches: what comes out depends on the class alone."""
    one, augment = images(1), DiffAug(ALL)
    draws = draw_classes(augment, torch.Generator().manual_seed(1), 3, 8, "cpu")
    real = apply_classes(augment, one.expand(9, -1, -1, -1), [4, 2, 3], draws)
    synthetic = apply_classes(augment, one.expand(3, -1, -1, -1), [1, 1, 1], draws)
    for label, own in enumerate(real.split([4, 2, 3])):
        torch.testing.assert_close(own, synthetic[label].expand_as(own), rtol=0, atol=1e-12)
    assert (synthetic[0] - synthetic[1]).abs().max() > 1e-3


def test_classes_with_one_operation_go_through_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    real = Dsa.apply

    def watched(self: Dsa, x: Tensor, draw: DsaDraw) -> Tensor:
        calls.append((draw.op, len(x)))
        return real(self, x, draw)

    monkeypatch.setattr(Dsa, "apply", watched)
    augment = DiffAug(ALL)
    draws = draw_classes(augment, torch.Generator().manual_seed(0), len(COUNTS), 8, "cpu")
    apply_grouped(augment, images(sum(COUNTS)), COUNTS, draws)
    moves = Counter[str]()
    for count, draw in zip(COUNTS, draws, strict=True):
        moves[operations(draw)[2]] += count
    assert len(moves) > 1
    whole = [(op, sum(COUNTS)) for op in ("flip", "color", "cutout")]
    assert sorted(calls) == sorted([*whole, *moves.items()])


def test_every_class_draws_for_itself() -> None:
    draws = draw_classes(Dsa("color"), torch.Generator().manual_seed(0), 20, 8, "cpu")
    assert all(own.values.shape == (3, 1) for own in draws if isinstance(own, DsaDraw))
    assert len({float(own.values[0]) for own in draws if isinstance(own, DsaDraw)}) == 20


@pytest.mark.parametrize(("counts", "num"), [([3, 2, 1], 6), ([3, 2], 6), ([3, 3], 5)])
def test_counts_that_do_not_fit_are_refused(counts: list[int], num: int) -> None:
    draws = draw_classes(Dsa(), torch.Generator().manual_seed(0), 2, 8, "cpu")
    with pytest.raises(ValueError, match="need as many draws and images, but got 2 draws and"):
        apply_classes(Dsa(), images(num), counts, draws)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("augment", BOTH, ids=["dsa", "diffaug"])
def test_a_gpu_augments_classes_like_the_cpu(augment: Augment) -> None:
    results = []
    for device in ("cpu", "cuda"):
        x = images(sum(COUNTS)).to(device).requires_grad_()
        draws = draw_classes(augment, torch.Generator().manual_seed(0), len(COUNTS), 8, device)
        result = apply_grouped(augment, x, COUNTS, draws)
        (gradient,) = torch.autograd.grad(result.pow(2).sum(), x)
        results.append((result.detach().cpu(), gradient.cpu()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
