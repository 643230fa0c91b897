"""TESLA: its closed form in float64, where it parts from the exact gradient, and the teacher's labels by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill import Problem
from ddnl_ray.distill.adjoint import MatchGradient, match, reach
from ddnl_ray.distill.student import Augmented, AutogradStudent, StudentBatch
from ddnl_ray.distill.tesla import Tesla, TeslaConfig
from ddnl_ray.distill.trajectory import draw_batches
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ArrayExperts
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0).child("distill")
EXACT = 1e-10


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy against classes, or against the soft-max of label logits."""
    if labels.is_floating_point():
        return -(F.softmax(labels, 1) * F.log_softmax(logits, 1)).sum() / len(labels)
    return F.nll_loss(F.log_softmax(logits, 1), labels)


@dataclass(frozen=True)
class ClosedForm:
    """The published gradient from ``G``, the sum of all step gradients, and ``a``, the expert's move."""

    images: Tensor
    labels: Tensor | None
    step_size: Tensor


def closed_form(
    network: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    beta: float,
    batches: Sequence[StudentBatch],
    augment: Dsa | None,
) -> ClosedForm:
    """dL/dX_i = (2/D) d/dX_i <beta a + beta^2 G, g_i>, the same for Y_i; dL/dbeta = -(2/D) <G, th_0 - beta G - th*>."""

    def gradient_of(theta: Tensor, rows: Tensor, own: Tensor, batch: StudentBatch, create_graph: bool) -> Tensor:
        leaf = theta.detach().requires_grad_()
        if augment is not None and batch.draw is not None:
            rows = augment.apply(rows, batch.draw)
        loss = cross_entropy(network(leaf, rows), own)
        return torch.autograd.grad(loss, leaf, create_graph=create_graph)[0]

    theta, total, visited = start, torch.zeros_like(start), []
    for batch in batches:
        visited.append(theta)
        gradient = gradient_of(theta, images[batch.index], labels[batch.index], batch, False)
        total, theta = total + gradient, theta - beta * gradient
    scale = ((target - start) ** 2).sum()
    constant = beta * (target - start) + beta**2 * total
    d_images = torch.zeros_like(images)
    d_labels = torch.zeros_like(labels) if labels.is_floating_point() else None
    for theta, batch in zip(visited, batches, strict=True):
        rows, own = images[batch.index].clone().requires_grad_(), labels[batch.index].clone()
        wanted = [rows] if d_labels is None else [rows, own.requires_grad_()]
        product = (constant * gradient_of(theta, rows, own, batch, True)).sum()
        parts = torch.autograd.grad(product, wanted)
        for place, part in zip((d_images, d_labels), parts, strict=False):
            assert place is not None
            for row, value in zip(batch.index.tolist(), part, strict=True):
                place[row] += 2 / scale * value
    d_beta = -2 / scale * (total * (start - beta * total - target)).sum()
    return ClosedForm(d_images, d_labels, d_beta)


@dataclass
class Case:
    """A segment on the smooth network."""

    smooth: Any
    images: Tensor
    labels: Tensor
    batches: list[StudentBatch]
    augment: Dsa | None
    beta: float = 0.3

    def match(self, grad_mode: str, kept: int = 0) -> MatchGradient:
        student = Augmented(AutogradStudent(self.smooth.network), self.augment)
        goal = reach(self.smooth.start, self.smooth.target)
        beta = torch.tensor(self.beta, dtype=torch.float64)
        return match(
            student, self.smooth.start, goal, self.images, self.labels, beta, self.batches, kept, grad_mode=grad_mode
        )

    def reference(self) -> ClosedForm:
        fixed = self.smooth.network, self.smooth.start, self.smooth.target
        return closed_form(*fixed, self.images, self.labels, self.beta, self.batches, self.augment)


def case(smooth: Any, soft: bool = True, num_steps: int = 5, op: str | None = None) -> Case:
    """7 images in batches of 3 of their own choice."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(7, 1, 3, 3, generator=generator, dtype=torch.float64)
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    batches = []
    for _ in range(num_steps):
        index = torch.randperm(7, generator=generator)[:3]
        batches.append(StudentBatch(index, Dsa(op).draw(generator, 3, 3, "cpu") if op else None))
    return Case(smooth, images, logits if soft else torch.arange(7) % 3, batches, Dsa(op) if op else None)


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert theirs.norm() > 0
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("op", [None, "color", "flip", "scale"])
@pytest.mark.parametrize("kept", [0, 2, 5])
@pytest.mark.parametrize("soft", [True, False])
def test_equals_the_closed_form(smooth: Any, soft: bool, kept: int, op: str | None) -> None:
    segment = case(smooth, soft, op=op)
    ours, theirs = segment.match("tesla", kept), segment.reference()
    assert relative(ours.images, theirs.images) < EXACT
    assert relative(ours.step_size, theirs.step_size) < EXACT
    assert (ours.labels is None) == (theirs.labels is None) == (not soft)
    if ours.labels is not None and theirs.labels is not None:
        assert relative(ours.labels, theirs.labels) < EXACT


def test_it_is_not_the_exact_gradient(smooth: Any) -> None:
    """The loss is the same; the gradients point about the same way and differ in every part."""
    ours, exact = case(smooth).match("tesla"), case(smooth).match("adjoint")
    assert torch.equal(ours.loss, exact.loss)
    assert ours.labels is not None
    assert exact.labels is not None
    for name in ("images", "labels", "step_size"):
        assert relative(getattr(ours, name), getattr(exact, name)) > 1e-2, name
    assert F.cosine_similarity(ours.images.flatten(), exact.images.flatten(), 0) > 0.5


@pytest.mark.parametrize("soft", [True, False])
def test_one_step_has_nothing_to_leave_out(smooth: Any, soft: bool) -> None:
    segment = case(smooth, soft, num_steps=1)
    ours, exact = segment.match("tesla"), segment.match("adjoint")
    for name in ("images", "step_size", *(["labels"] if soft else [])):
        assert relative(getattr(ours, name), getattr(exact, name)) < EXACT
        assert relative(getattr(ours, name), getattr(segment.reference(), name)) < EXACT


def method(**changes: Any) -> Tesla:
    values: dict[str, Any] = {
        "syn_steps": 4,
        "expert_epochs": 1,
        "max_start_epoch": 1,
        "batch_syn": 4,
        "lr_img": 1.0,
        "lr_lr": 1e-3,
        "lr_teacher": 0.3,
    }
    return Tesla(TeslaConfig(**(values | changes)))


@pytest.mark.parametrize("teacher", [True, False])
def test_a_step_moves_against_the_closed_form(smooth: Any, teacher: bool) -> None:
    """Two iterations: soft targets are the target weights' predictions for the images of the moment."""
    chosen, problem = method(teacher_label=teacher), smooth.problem
    state = chosen.init(problem, SEED)
    velocity = torch.zeros_like(state.images)
    for iteration in range(2):
        batches = draw_batches(len(state.images), chosen.config, problem, SEED.child("step", iteration))
        labels = smooth.network(smooth.target, state.images) if teacher else state.labels
        beta = float(state.step_size)
        expected = closed_form(smooth.network, smooth.start, smooth.target, state.images, labels, beta, batches, None)
        velocity = 0.5 * velocity + expected.images
        moved, info = chosen.step(state, problem, SEED)
        assert info.accepted
        torch.testing.assert_close(moved.images, state.images - velocity, rtol=EXACT, atol=EXACT)
        torch.testing.assert_close(moved.labels, labels, rtol=EXACT, atol=EXACT)
        state = moved
    assert velocity.norm() > 1e-3


def test_teacher_labels_by_hand(linear_problem: Callable[..., Problem]) -> None:
    """An expert that doubles the features: logits are twice the image, probabilities their soft-max."""
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    eye = torch.eye(2).numpy().reshape(1, -1)
    experts = ArrayExperts([torch.cat([torch.from_numpy(eye), torch.from_numpy(2 * eye)]).numpy()], (0, 1), 1)
    problem = linear_problem(features, [0, 1], experts, 1)
    chosen = method(teacher_label=True, lr_img=0.1, batch_syn=None)
    first = chosen.init(problem, SEED)
    assert first.labels.tolist() == [0, 1]
    assert chosen.export(first, problem).labels.tolist() == [0, 1]
    second, info = chosen.step(first, problem, SEED)
    assert info.accepted
    torch.testing.assert_close(second.labels, torch.tensor([[2.0, 0.0], [0.0, 6.0]]))
    probabilities = chosen.export(second, problem).labels
    e2, e6 = 7.38905609893065, 403.4287934927351
    expected = torch.tensor([[e2 / (1 + e2), 1 / (1 + e2)], [1 / (1 + e6), e6 / (1 + e6)]])
    torch.testing.assert_close(probabilities, expected)
    third, _ = chosen.step(second, problem, SEED)
    torch.testing.assert_close(third.labels, 2 * second.images.flatten(1))
    assert not torch.equal(third.labels, second.labels)
    assert third.velocity_labels is None


@pytest.mark.parametrize("teacher", [True, False])
def test_a_refused_update_leaves_the_labels(smooth: Any, teacher: bool) -> None:
    state = method(teacher_label=teacher).init(smooth.problem, SEED)
    state, _ = method(teacher_label=teacher).step(state, smooth.problem, SEED)
    after, info = method(teacher_label=teacher, max_loss=1e-9).step(state, smooth.problem, SEED)
    assert not info.accepted
    assert after.labels is state.labels
    assert after.images is state.images
    assert after.iteration == state.iteration + 1


def test_a_step_leaves_the_given_state_alone(smooth: Any) -> None:
    chosen = method(teacher_label=True)
    state, _ = chosen.step(chosen.init(smooth.problem, SEED), smooth.problem, SEED)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    chosen.step(state, smooth.problem, SEED)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


def test_the_approximation_is_the_default_and_a_choice(smooth: Any) -> None:
    assert TeslaConfig(syn_steps=1, max_start_epoch=1, lr_img=1.0, lr_lr=0.0).grad_mode == "tesla"
    moved = [
        method(grad_mode=mode).step(method().init(smooth.problem, SEED), smooth.problem, SEED)[0].images
        for mode in ("tesla", "adjoint")
    ]
    assert relative(moved[0], moved[1]) > 1e-4


def test_bad_settings_are_refused() -> None:
    with pytest.raises(RequestError, match="unknown grad_mode 'telsa': did you mean 'tesla'"):
        method(grad_mode="telsa")
