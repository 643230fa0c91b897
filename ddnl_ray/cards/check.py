"""Whether a card and its files are what was written: checksums, format, shapes, ranges, and that they agree."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddnl_ray.card import seal
from ddnl_ray.cards.read import read_transform
from ddnl_ray.data import Zca
from ddnl_ray.errors import CorruptFileError
from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.files import read_tensors, sha256
from ddnl_ray.models import NetworkSpec

KINDS = ("classes", "probabilities", "scores")
TOLERANCE = 1e-3
PROBED = 8
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError, OSError)


@dataclass(frozen=True)
class _Subject:
    """What is checked."""

    folder: Path
    about: Mapping[str, Any]

    @functools.cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the set; empty where they cannot be read, which has been said before."""
        try:
            tensors, _ = read_tensors(self.folder / plain_name(self.about["images"]["file"]))
        except (*_BROKEN, CorruptFileError):
            return {}
        return tensors if {"images", "labels"} <= set(tensors) else {}

    def file_problems(self, entry: Mapping[str, Any], wanted: set[str]) -> Iterator[str]:
        """Yield what is wrong with a file of tensors that an entry names."""
        path = self.folder / plain_name(entry["file"])
        if not path.is_file():
            yield f"{path.name} is missing"
            return
        if "sha256" in entry:
            found = sha256(path.read_bytes())
            if found != entry["sha256"]:
                yield f"{path.name} does not match its checksum: it has {found[:12]}, the card says {entry['sha256']}"
        try:
            tensors, _ = read_tensors(path)
        except CorruptFileError as error:
            yield str(error)
            return
        if not wanted <= set(tensors):
            yield f"{path.name} holds the tensors {sorted(tensors)}, expected {sorted(wanted)}"


def plain_name(name: Any) -> str:
    """Return the name of a file beside the card.

    Raises:
        ValueError: It leads elsewhere.
    """
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a file beside the card")
    return name


def problems(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a card and its files, one sentence each; nothing is trained.

    Cards from before they had a checksum of their own are held against the copies that ``config`` has of their entries.

    Args:
        folder: Where the card lies.
        about: The content of ``card.json``.
    """
    subject, found = _Subject(folder, about), []
    for name, check in _CHECKS.items():
        try:
            found += list(check(subject))
        except _BROKEN as error:
            said = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            found.append(f"card.json: {name} cannot be used: {said}")
    return found


def _seal(subject: _Subject) -> Iterator[str]:
    about = subject.about
    if "sha256" in about:
        if seal(about)["sha256"] != about["sha256"]:
            yield "card.json does not match its own checksum: it was changed after it was written"
        return
    config = about.get("config", {})
    pairs = {name: (about.get(name), config.get(name)) for name in ("method", "ipc", "dataset", "evaluation")}
    pairs["network"] = (about.get("network"), (config.get("eval_networks") or [None])[0])
    for name, (here, there) in pairs.items():
        if config and here != there:
            yield f"card.json: {name} is {here!r}, but its config says {there!r}"


def _files(subject: _Subject) -> Iterator[str]:
    yield from subject.file_problems(subject.about["images"], {"images", "labels"})


def _images(subject: _Subject) -> Iterator[str]:
    about, images = subject.about, subject.tensors.get("images")
    shape = list(about["images"]["shape"])
    if about["images"]["layout"] != "NCHW" or len(shape) != 4:
        yield f"card.json: the images must be NCHW with 4 sizes, but it says {about['images']['layout']!r}, {shape}"
    if images is None:
        return
    if list(images.shape) != shape:
        yield f"the images have the shape {list(images.shape)}, but the card says {shape}"
    if images.dtype != torch.float32:
        yield f"the images are {images.dtype}, expected torch.float32"
    if not bool(images.isfinite().all()):
        yield "some pixels are not finite"
        return
    low, high = about["pixels"]["range"]
    ends = float(images.min()), float(images.max())
    if not all(math.isclose(*pair, abs_tol=1e-6) for pair in zip(ends, (low, high), strict=True)):
        yield f"the pixels reach from {ends[0]:.4f} to {ends[1]:.4f}, but the card says {low} to {high}"
    ipc = about["ipc"]
    if len(images) != ipc * len(about["classes"]):
        yield f"there are {len(images)} images, but the card says {ipc} for each of {len(about['classes'])} classes"


def _labels(subject: _Subject) -> Iterator[str]:
    kind, num_classes = subject.about["labels"]["kind"], len(subject.about["classes"])
    if kind not in KINDS:
        yield f"card.json: the labels are {kind!r}, expected one of {', '.join(KINDS)}"
        return
    if not subject.tensors:
        return
    labels, num = subject.tensors["labels"], len(subject.tensors["images"])
    shape, dtype = ([num], torch.int64) if kind == "classes" else ([num, num_classes], torch.float32)
    if list(labels.shape) != shape or labels.dtype != dtype:
        yield f"the labels ({kind}) are {labels.dtype} {list(labels.shape)}, expected {dtype} {shape}"
    elif kind == "classes" and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        yield f"the labels reach from {int(labels.min())} to {int(labels.max())}, but there are {num_classes} classes"
    elif not bool(labels.isfinite().all()):
        yield "some labels are not finite"
    elif kind == "probabilities" and not (
        bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() < TOLERANCE).all())
    ):
        yield "the labels are not probabilities: some are negative, or do not add up to 1"


def _transform(subject: _Subject) -> Iterator[str]:
    entry, images = subject.about["transform"], subject.tensors.get("images")
    if entry["kind"] == "zca":
        faults = list(subject.file_problems(entry, {"mean", "whiten", "unwhiten"}))
        if faults:
            yield from faults
            return
    elif entry["kind"] != "normalise":
        yield f"card.json: the transform is {entry['kind']!r}, expected normalise or zca"
        return
    transform = read_transform(subject.folder, subject.about)
    _, channels, height, width = subject.about["images"]["shape"]
    if isinstance(transform, Zca):
        dim = channels * height * width
        shapes = [list(tensor.shape) for tensor in (transform.mean, transform.whiten, transform.unwhiten)]
        if shapes != [[dim], [dim, dim], [dim, dim]]:
            yield f"the matrices of ZCA have the shapes {shapes}, expected {dim} values and twice {dim} x {dim}"
            return
    elif not (transform.mean.shape == transform.std.shape == (channels,)) or not bool((transform.std > 0).all()):
        yield f"the transform needs {channels} means and as many deviations above 0, but has {entry}"
        return
    if images is not None and list(images.shape) == subject.about["images"]["shape"]:
        some = images[:PROBED].double()
        if not torch.allclose(transform.apply(transform.invert(some)), some, atol=10 * TOLERANCE):
            yield "the transform and its inverse do not undo each other"


def _training(subject: _Subject) -> Iterator[str]:
    about = subject.about
    recipe, network = EvalRecipe(**about["evaluation"]), NetworkSpec(**about["network"])
    network.require_fits(tuple(about["images"]["shape"][1:]))
    step_size, formation = about["step_size"], about.get("formation") or {}
    if step_size is not None and not (isinstance(step_size, float) and 0 < step_size < math.inf):
        yield f"card.json: step_size must be a number above 0 or null, but is {step_size!r}"
    if step_size is None and recipe.lr is None:
        yield "card.json: neither step_size nor evaluation.lr says how fast to learn"
    factor = formation.get("factor", 1)
    if not isinstance(factor, int) or factor < 1:
        yield f"card.json: formation.factor must be a whole number of at least 1, but is {factor!r}"
    if about["labels"]["kind"] == "scores" and recipe.loss != "squared":
        yield f"card.json: the labels are scores, on which the loss {recipe.loss!r} cannot train"


def _promise(subject: _Subject) -> Iterator[str]:
    promised = subject.about["expected_accuracy"]
    mean, low, high, n = (promised[name] for name in ("mean", "low", "high", "n"))
    if not isinstance(n, int) or n < 1 or (low is None) != (n < 2) or (low is None) != (high is None):
        yield f"card.json: expected_accuracy has n = {n!r} with the interval {low!r} to {high!r}"
    elif not 0 <= mean <= 1 or (low is not None and not low <= mean <= high):
        yield f"card.json: expected_accuracy is {mean!r} with the interval {low!r} to {high!r}, which cannot be"


_CHECKS: dict[str, Callable[[_Subject], Iterator[str]]] = {
    "sha256": _seal,
    "images.file": _files,
    "images": _images,
    "labels": _labels,
    "transform": _transform,
    "evaluation": _training,
    "expected_accuracy": _promise,
}
