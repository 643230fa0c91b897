"""The adjoint against plain back-propagation through an unrolled student, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.dsa import OPERATIONS, Dsa
from ddnl_ray.distill.adjoint import MatchGradient, match, reach
from ddnl_ray.distill.student import Augmented, AutogradStudent, ConvNetStudent, InParts, Student, StudentBatch
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

CLASSES, CHANNELS, SIZE, WIDTH = 4, 2, 8, 3
EXACT = 1e-10
Network = Callable[[Tensor, Tensor], Tensor]


def mlp(theta: Tensor, x: Tensor) -> Tensor:
    """A smooth two-layer network of 128 inputs."""
    w1, b1, w2 = theta[: 128 * 5].view(5, 128), theta[640:645], theta[645:].view(CLASSES, 5)
    logits: Tensor = torch.tanh(x.flatten(1) @ w1.T / 4 + b1) @ w2.T
    return logits


def convnet(theta: Tensor, x: Tensor) -> Tensor:
    """ConvNet-2 by torch's functions: convolution, group norm with a group per channel, ReLU, average pooling."""
    sizes = [WIDTH * CHANNELS * 9, WIDTH, WIDTH, WIDTH, WIDTH * WIDTH * 9, WIDTH, WIDTH, WIDTH]
    *blocks, weight, bias = theta.split([*sizes, CLASSES * WIDTH * 4, CLASSES])
    for first, channels in ((0, CHANNELS), (4, WIDTH)):
        kernel, shift, scale, offset = blocks[first : first + 4]
        x = F.conv2d(x, kernel.view(WIDTH, channels, 3, 3), shift, padding=1)
        x = F.avg_pool2d(F.relu(F.group_norm(x, WIDTH, scale, offset)), 2)
    logits: Tensor = x.flatten(1) @ weight.view(CLASSES, -1).T + bias
    return logits


@dataclass
class Case:
    """A segment to match. ``ours`` and ``theirs`` are one network, written twice where that makes sense."""

    ours: Network
    theirs: Network
    start: Tensor
    target: Tensor
    images: Tensor
    labels: Tensor
    step_size: Tensor
    batches: list[StudentBatch]
    augment: Dsa | None

    def student(self, kind: str) -> Student:
        """Return a student of our network: ``autograd``, ``by hand``, or either ``in parts`` of 2 images."""
        how, _, parts = kind.partition(" in ")
        if how == "by hand":
            assert isinstance(self.ours, Flat)
            student: Student = ConvNetStudent(self.ours)
        else:
            student = AutogradStudent(self.ours)
        return InParts(student, 2) if parts else student

    def match(self, kept: int = 0, kind: str = "autograd", **changes: Tensor) -> MatchGradient:
        values = {name: getattr(self, name) for name in ("start", "target", "images", "labels", "step_size")} | changes
        goal = reach(values["start"], values.pop("target"))
        return match(Augmented(self.student(kind), self.augment), goal=goal, **values, batches=self.batches, kept=kept)

    def loss(self) -> float:
        return float(self.match().loss)


def case(
    network: str = "mlp",
    soft: bool = True,
    ops: Sequence[str | None] = (None,) * 5,
    num: int = 7,
    chunk: int = 3,
    step_size: float = 0.3,
) -> Case:
    """Draw a segment: one student step per entry of ``ops``, on chunks of a permutation that is renewed."""
    generator = torch.Generator().manual_seed(5)
    ours: Network = mlp
    theirs: Network = mlp
    start = 0.3 * torch.randn(645 + CLASSES * 5, generator=generator, dtype=torch.float64)
    if network == "convnet":
        flat = Flat(build(NetworkSpec("convnet2", WIDTH), (CHANNELS, SIZE, SIZE), CLASSES, generator).double())
        ours, theirs, start = flat, convnet, flat.flatten()
        start += 0.03 * torch.randn(flat.num_params, generator=generator, dtype=torch.float64)
    target = start + 0.1 * torch.randn(len(start), generator=generator, dtype=torch.float64)
    images = torch.randn(num, CHANNELS, SIZE, SIZE, generator=generator, dtype=torch.float64)
    hard = torch.randint(0, CLASSES, (num,), generator=generator)
    logits = torch.randn(num, CLASSES, generator=generator, dtype=torch.float64)
    pool: list[Tensor] = []
    batches = []
    for op in ops:
        pool = pool or list(torch.randperm(num, generator=generator).split(chunk))
        index = pool.pop()
        draw = None if op is None else Dsa(op).draw(generator, len(index), SIZE, "cpu")
        batches.append(StudentBatch(index, draw))
    augment = None if ops[0] is None else Dsa()
    beta = torch.tensor(step_size, dtype=torch.float64)
    return Case(ours, theirs, start, target, images, logits if soft else hard, beta, batches, augment)


def unrolled(case: Case) -> MatchGradient:
    """Keep every graph and let autograd do the rest."""
    x = case.images.clone().requires_grad_()
    y = case.labels.clone()
    beta = case.step_size.clone().requires_grad_()
    inputs = [x, beta]
    if y.is_floating_point():
        inputs.append(y.requires_grad_())
    theta = case.start.clone().requires_grad_()
    for batch in case.batches:
        rows = x[batch.index]
        if batch.draw is not None:
            assert case.augment is not None
            rows = case.augment.apply(rows, batch.draw)
        log_p = F.log_softmax(case.theirs(theta, rows), dim=1)
        own = y[batch.index]
        loss = -(F.softmax(own, dim=1) * log_p).sum() / len(own) if y.is_floating_point() else F.nll_loss(log_p, own)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - beta * gradient
    matching = ((theta - case.target) ** 2).sum() / ((case.start - case.target) ** 2).sum()
    gradients = torch.autograd.grad(matching, inputs)
    labels = gradients[2] if len(gradients) > 2 else None
    return MatchGradient(matching.detach(), gradients[0], labels, gradients[1], len(case.batches))


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert theirs.norm() > 0
    return float((ours - theirs).norm() / theirs.norm())


def assert_equal(ours: MatchGradient, theirs: MatchGradient) -> None:
    assert relative(ours.loss, theirs.loss) < EXACT
    assert relative(ours.images, theirs.images) < EXACT
    assert relative(ours.step_size, theirs.step_size) < EXACT
    assert (ours.labels is None) == (theirs.labels is None)
    if ours.labels is not None and theirs.labels is not None:
        assert relative(ours.labels, theirs.labels) < EXACT


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("kept", [0, 2, 5, 99])
@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_equals_the_unrolled_student(network: str, kept: int, soft: bool) -> None:
    segment = case(network, soft)
    assert_equal(segment.match(kept), unrolled(segment))


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("op", OPERATIONS)
def test_equals_the_unrolled_student_under_every_augmentation(op: str, kept: int) -> None:
    segment = case("convnet", ops=(op,) * 3)
    assert_equal(segment.match(kept), unrolled(segment))


def test_equals_the_unrolled_student_under_changing_augmentations() -> None:
    segment = case("convnet", soft=False, ops=OPERATIONS, chunk=4)
    assert_equal(segment.match(2), unrolled(segment))


KINDS = ("autograd in parts", "by hand", "by hand in parts")


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("kept", [0, 2, 99])
@pytest.mark.parametrize("kind", KINDS)
def test_every_student_equals_the_unrolled_one(kind: str, kept: int, soft: bool) -> None:
    segment = case("convnet", soft)
    assert_equal(segment.match(kept, kind), unrolled(segment))


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_student_equals_the_unrolled_one_under_augmentation(kind: str, op: str) -> None:
    segment = case("convnet", ops=(op,) * 3)
    assert_equal(segment.match(1, kind), unrolled(segment))


@pytest.mark.parametrize("kind", ["by hand", "by hand in parts"])
def test_kept_tapes_change_no_bit(kind: str) -> None:
    segment = case("convnet", ops=("color", "scale", "flip"))
    first, second = segment.match(0, kind), segment.match(3, kind)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.step_size, second.step_size)


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("soft", [True, False])
def test_one_step(soft: bool, kept: int) -> None:
    segment = case("convnet", soft, ops=(None,))
    assert_equal(segment.match(kept), unrolled(segment))


@pytest.mark.parametrize("kept", [0, 2])
def test_the_whole_set_in_every_step(kept: int) -> None:
    segment = case("convnet", ops=(None,) * 4, chunk=7)
    assert_equal(segment.match(kept), unrolled(segment))


@pytest.mark.parametrize("kept", [0, 2])
def test_images_that_no_step_uses_have_no_gradient(kept: int) -> None:
    segment = case(ops=(None,) * 2)  # 1 + 3 of 7 images
    gradient = segment.match(kept)
    used = torch.cat([batch.index for batch in segment.batches])
    unused = torch.ones(7, dtype=torch.bool).index_fill(0, used, False)
    assert int(unused.sum()) == 3
    assert gradient.labels is not None
    assert not gradient.images[unused].any()
    assert not gradient.labels[unused].any()
    assert gradient.images[~unused].flatten(1).any(1).all()


@pytest.mark.parametrize("kept", [0, 2])
def test_the_step_size_by_finite_differences(kept: int) -> None:
    """Central differences: the truncation error is O(h^2) = 1e-10, the rounding error 1e-16 / h = 1e-11."""
    segment, h = case("mlp"), 1e-5
    up, down = (segment.match(step_size=segment.step_size + sign * h).loss for sign in (1, -1))
    slope = float(up - down) / (2 * h)
    assert float(segment.match(kept).step_size) == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_images_and_labels_by_finite_differences(name: str) -> None:
    segment, h = case("mlp"), 1e-5
    value = getattr(segment, name)
    generator = torch.Generator().manual_seed(8)
    direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    up, down = (segment.match(**{name: value + sign * h * direction}).loss for sign in (1, -1))
    slope = float(up - down) / (2 * h)
    assert float((getattr(segment.match(), name) * direction).sum()) == pytest.approx(slope, rel=1e-7)


def test_the_loss_by_hand() -> None:
    """A student that cannot move (step size 0) stays at the start: loss 1, and only the step size matters."""
    segment = case(step_size=0.0)
    gradient = segment.match()
    assert float(gradient.loss) == pytest.approx(1.0)
    assert not gradient.images.any()
    assert gradient.step_size != 0


@pytest.mark.parametrize("kept", [0, 5])
@pytest.mark.parametrize("move", [0.0, 1e-8])
def test_an_expert_that_did_not_move_gives_nan(kept: int, move: float) -> None:
    segment = case()
    target = segment.start.clone()
    target[0] += move
    assert segment.match(kept, target=target).loss.isnan()
    target[0] += 1e-5
    assert segment.match(kept, target=target).loss.isfinite()


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_inputs_are_left_alone(kept: int) -> None:
    segment = case("convnet", ops=("color",) * 5)
    names = ("start", "target", "images", "labels", "step_size")
    before = {name: getattr(segment, name).clone() for name in names}
    indices = [batch.index.clone() for batch in segment.batches]
    gradient = segment.match(kept)
    for name in names:
        value = getattr(segment, name)
        assert torch.equal(value, before[name]), name
        assert not value.requires_grad, name
        assert value.grad is None, name
    assert all(torch.equal(batch.index, index) for batch, index in zip(segment.batches, indices, strict=True))
    for part in (gradient.loss, gradient.images, gradient.labels, gradient.step_size):
        assert part is not None
        assert not part.requires_grad
    assert_equal(segment.match(kept), gradient)


@pytest.mark.parametrize("kept", [0, 5])
def test_gradients_work_inside_no_grad(kept: int) -> None:
    segment = case()
    with torch.no_grad():
        ours = segment.match(kept)
    assert_equal(ours, unrolled(segment))


def test_the_same_bits_twice_and_no_global_randomness(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    segment = case("convnet", ops=("scale", "rotate", "crop"))
    results = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            results.append(segment.match(1))
    assert torch.equal(results[0].images, results[1].images)
    assert torch.equal(results[0].step_size, results[1].step_size)


def test_a_student_that_diverges_gives_no_finite_loss() -> None:
    assert not case("convnet", step_size=1e300).match().loss.isfinite()


def convnet_bytes(num: int, width: int = 4) -> int:
    network = Flat(build(NetworkSpec("convnet2", width), (1, 8, 8), 3, SeedTree.root(0).torch()))
    images, labels = torch.zeros(20, 1, 8, 8), torch.zeros(20, 3)
    return AutogradStudent(network).tape_bytes(network.flatten(), images[:num], labels[:num])


def test_tape_bytes_grow_with_the_batch_and_the_network() -> None:
    """A step holds at least its activations: 8x8 and 4x4 maps before and after each of the two blocks' layers."""
    assert convnet_bytes(1) > 0
    assert 4 * (8 * 8 + 4 * 4) * 4 < convnet_bytes(1)
    assert 1.8 < (convnet_bytes(20) - convnet_bytes(10)) / (convnet_bytes(10) - convnet_bytes(5)) < 2.2
    assert convnet_bytes(10, width=8) > 1.5 * convnet_bytes(10)


def test_tape_bytes_of_parts_add_up() -> None:
    segment = case("convnet")
    theta, images, labels = segment.start, segment.images[:4], segment.labels[:4]
    whole, parts = (segment.student(kind).tape_bytes(theta, images, labels) for kind in KINDS[1:])
    assert whole == parts
    assert 0 < whole < segment.student("autograd").tape_bytes(theta, images, labels)


def test_tape_bytes_are_what_autograd_saves_beside_the_inputs() -> None:
    """For logits = x w, loss = -<p, logits - logsumexp>: counted by hand for one step of soft cross-entropy."""

    def network(theta: Tensor, x: Tensor) -> Tensor:
        return x.flatten(1) @ theta.view(4, 3)

    small, large = (
        AutogradStudent(network).tape_bytes(torch.zeros(12), torch.ones(n, 1, 2, 2), torch.zeros(n, 3))
        for n in (1000, 2000)
    )
    rows = (large - small) / 1000 / 4
    # Images, weights and labels are inputs; what grows are maps of [n, 3] (probabilities, log-probabilities, gradients)
    # and a few sums of them, [n].
    assert rows == int(rows)
    assert 3 * 2 <= rows <= 3 * 12
