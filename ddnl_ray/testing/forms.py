"""The form of states and of exported sets."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.distill.base import Distilled, Problem, State


def require_state_value(name: str, value: Any, device: str) -> None:
    """Check one field of a state."""
    if isinstance(value, Tensor):
        assert not value.requires_grad, f"{name} must be detached: a state that holds a graph holds its memory"
        assert value.device.type == device, f"{name} is on {value.device.type}, but the problem on {device}"
    else:
        assert value is None or type(value) is int, f"a state holds integers and tensors, but {name} is {value!r}"


def require_finite(state: State) -> None:
    """Check that every tensor of a state is finite."""
    bad = [name for name, tensor in state.tensors().items() if not bool(tensor.isfinite().all())]
    assert not bad, f"{', '.join(bad)} must stay finite"


def require_form(exported: Distilled, problem: Problem) -> None:
    """Check shapes, types and ranges of an exported set."""
    images, labels, step_size = exported.images, exported.labels, exported.step_size
    space = tuple(problem.images.shape[1:])
    assert images.dtype == torch.float32, f"images must be float32, but are {images.dtype}"
    assert tuple(images.shape[1:]) == space, f"images must be of shape {space}, but are of {tuple(images.shape[1:])}"
    assert len(images) == len(labels), f"there are {len(images)} images, but {len(labels)} labels"
    for name, tensor in (("images", images), ("labels", labels)):
        assert tensor.device == problem.device, f"{name} must be on {problem.device}, but are on {tensor.device}"
        assert not tensor.requires_grad, f"{name} must be detached"
        assert bool(tensor.isfinite().all()), f"{name} must be finite"
    if labels.is_floating_point():
        assert labels.dtype == torch.float32, f"soft labels must be float32, but are {labels.dtype}"
        assert labels.shape == (len(images), problem.num_classes), f"soft labels are of shape {tuple(labels.shape)}"
        if not exported.scores:
            assert bool((labels >= 0).all()), "soft labels are probabilities, but some are negative"
            torch.testing.assert_close(labels.sum(1), torch.ones_like(labels[:, 0]), rtol=0, atol=1e-5)
    else:
        assert not exported.scores, "scores are float32, but these labels are classes"
        assert labels.dtype == torch.int64, f"hard labels must be int64, but are {labels.dtype}"
        assert labels.dim() == 1, f"hard labels must be one number per image, but are of shape {tuple(labels.shape)}"
        assert bool(((labels >= 0) & (labels < problem.num_classes)).all()), "a label is not a class of the problem"
    if step_size is not None:
        fine = type(step_size) is float and 0 < step_size < math.inf
        assert fine, f"step_size must be a float above 0 or None, but is {step_size!r}"


def require_balance(classes: Tensor, problem: Problem, ipc: int) -> None:
    """Check that every class comes ``ipc`` times."""
    counts = classes.bincount(minlength=problem.num_classes).tolist()
    assert counts == [ipc] * problem.num_classes, f"with ipc {ipc} the classes have {counts} images"


def first_classes(exported: Distilled, problem: Problem) -> Tensor:
    """Return the observed classes of the training images that a first set is made of, else its likeliest classes."""
    equal = (exported.images.unsqueeze(1) == problem.images.unsqueeze(0)).flatten(2).all(2)
    return problem.labels[equal.int().argmax(1)] if bool(equal.any(1).all()) else exported.labels.argmax(1)
