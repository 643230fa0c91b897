"""Cleaned labels as something derived: made once, shared by every method, IPC and sweep on the same noisy labels.

The cleaner sees the training images standardised per channel, whatever the distiller's images are like (whitened ones
are turned back into pixels), for so were the images on which its self-supervised trunk was trained.

It goes on from a checkpoint, which lies beside its file in the store: cleaning takes hundreds of epochs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddnl_ray.data import Normalise
from ddnl_ray.denoise import Cleaned, Cleaner, Problem, build_cleaner, predict
from ddnl_ray.distill import State
from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.experts.policy import Policy
from ddnl_ray.experts.precision import products
from ddnl_ray.experts.store import UNFINISHED
from ddnl_ray.features import Extractor
from ddnl_ray.files import read_tensors, write_tensors
from ddnl_ray.models import NetworkSpec
from ddnl_ray.robust.derived import Derived, Inputs
from ddnl_ray.robust.rounds import auc, share_of
from ddnl_ray.robust.stages import Features, pixels
from ddnl_ray.robust.tiat import Subset
from ddnl_ray.seeds import SeedTree

CHECKPOINT_S = 30.0
"""Seconds between checkpoints."""
_ROBUST_ACCURACY = "robust_test_accuracy"


@dataclass(frozen=True)
class CleanerTraining:
    """What a cleaner trains beside its settings.

    Attributes:
        network: The network.
        flip: Whether augmentation may mirror images.
    """

    network: NetworkSpec
    flip: bool


@dataclass(frozen=True)
class CleanedLabels(Derived):
    """What a cleaner says of the labels of the training part."""

    kind: ClassVar[str] = "cleaned"
    data: str
    labels: str
    cleaner: str
    settings: Mapping[str, Any]
    training: CleanerTraining
    num_classes: int
    features: Features | None
    root_seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """All arguments, every setting of the cleaner by value; of the extractor its key."""
        return {
            "data": self.data,
            "labels": self.labels,
            "cleaner": self.cleaner,
            "settings": build_cleaner(self.cleaner, self.settings).config.identity,
            "training": dataclasses.asdict(self.training),
            "classes": self.num_classes,
            "features": self.features.key if self.features is not None else None,
            "seed": self.root_seed,
        }

    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Run the cleaner, from its checkpoint where there is one.

        Of its robust networks the accuracy on the test set is kept, and not the weights.

        Raises:
            RequestError: Training diverged, or the network does not fit the images.
        """
        data = inputs.data
        training_pixels = pixels(data, data.train_images)
        standard = Normalise.fit(training_pixels)
        cleaner, problem = build_cleaner(self.cleaner, self.settings), self._problem(inputs, training_pixels, standard)
        found = _run(cleaner, problem, self.seed, self._checkpoint(inputs.store))
        tensors, about = dataclasses.replace(found, networks=None).to_tensors()
        if found.networks is not None:
            with products("float32", problem.device):
                guesses = predict(problem, found.networks, standard.apply(pixels(data, data.test_images)))
            about[_ROBUST_ACCURACY] = share_of(guesses == data.test_labels)
        return tensors, about

    def build(self, inputs: Inputs) -> None:
        """Make it, unless the store holds it; then nothing is left of its checkpoint (see :meth:`Derived.build`)."""
        super().build(inputs)
        self._checkpoint(inputs.store).remove()

    def _checkpoint(self, store: ExpertStore) -> _Checkpoint:
        return _Checkpoint(store, f"{self.name}{UNFINISHED}", self.key)

    def _problem(self, inputs: Inputs, training_pixels: Tensor, standard: Normalise) -> Problem:
        """Return the cleaner's problem: standardised images, and the trunk or the features that were derived before."""
        problem = Problem(
            images=standard.apply(training_pixels),
            labels=inputs.labels,
            num_classes=self.num_classes,
            network=self.training.network,
            flip=self.training.flip,
        )
        if self.features is None:
            return problem
        extractor = Extractor.from_tensors(*self.features.read(inputs.store.root)).to(problem.device)
        return dataclasses.replace(problem, start=extractor.state, features=extractor.embed(training_pixels))

    def cleaned(self, root: Path) -> Cleaned:
        """Read what the cleaner says, on the CPU."""
        return Cleaned.from_tensors(*self.read(root))

    def kept(self, root: Path, device: torch.device) -> tuple[Tensor, Tensor]:
        """Read which images are to be used, ascending rows int64 [m], and the label of every image, int64 [N]."""
        found = self.cleaned(root)
        return found.kept.nonzero().flatten().to(device), found.hard.to(device)

    def describe(self, observed: Tensor, clean: Tensor | None, root: Path) -> dict[str, Any]:
        """Return what the cleaner estimates and does and, where the truth is known, how right it is.

        Args:
            observed: Observed labels of the training part, int64 [N].
            clean: True labels, int64 [N], or None.
            root: The store.
        """
        tensors, about = self.read(root)
        found = Cleaned.from_tensors(tensors, about)
        observed, kept = observed.cpu(), found.kept
        said: dict[str, Any] = {
            "cleaner": self.cleaner,
            "rate": found.rate,
            "transition": [[round(float(value), 6) for value in row] for row in found.transition],
            "kept": share_of(kept),
            "relabelled": share_of(found.hard[kept] != observed[kept]),
            "histogram": torch.bincount(found.hard[kept], minlength=self.num_classes).tolist(),
        }
        if _ROBUST_ACCURACY in about:
            said[_ROBUST_ACCURACY] = about[_ROBUST_ACCURACY]
        if clean is not None:
            clean = clean.cpu()
            said["accuracy_before"] = share_of(observed == clean)
            said["accuracy_after"] = share_of(found.hard[kept] == clean[kept])
            said["auc"] = auc(observed == clean, found.confidence)
        return said


@dataclass(frozen=True)
class CleanedSource:
    """Experts that learn from cleaned labels (a :class:`ddnl_ray.experts.policy.PolicySource`)."""

    cleaned: CleanedLabels

    @property
    def identity(self) -> dict[str, Any]:
        """The key of the cleaned labels."""
        return {"cleaned": self.cleaned.key}

    def open(self, root: Path, images: Tensor, labels: Tensor) -> Policy:
        """Return the policy (see :class:`PolicySource`).

        Where no image is kept, they are all trained on: the trials then end with a sentence that says so, and the rest
        of a sweep goes on.
        """
        rows, cleaned = self.cleaned.kept(root, labels.device)
        return Subset(cleaned, rows if len(rows) else torch.arange(len(labels), device=labels.device))


def _run(cleaner: Cleaner[Any], problem: Problem, seed: SeedTree, checkpoint: _Checkpoint) -> Cleaned:
    """Run a cleaner to its end, with checkpoints; the bits are those of :func:`ddnl_ray.denoise.clean`."""
    total = cleaner.length(problem)
    state = checkpoint.read(cleaner.state, problem.device)
    if state is None:
        state = cleaner.init(problem, seed)
    saved = time.monotonic()
    while state.iteration < total:
        state, _ = cleaner.step(state, problem, seed)
        if time.monotonic() - saved >= CHECKPOINT_S:
            checkpoint.write(state)
            saved = time.monotonic()
    with products("float32", problem.device):
        return cleaner.export(state, problem)


@dataclass(frozen=True)
class _Checkpoint:
    """The state of a cleaner that has not ended, in the store, so that another machine can go on from it.

    Attributes:
        store: The store.
        name: Its file there.
        key: What it is of.
    """

    store: ExpertStore
    name: str
    key: str

    def read(self, kind: type[State], device: torch.device) -> State | None:
        """Return the state; None: there is none that can be read."""
        if self.store.folder.exists(self.name):
            # Another process that makes the same may remove it at any moment.
            with suppress(CorruptFileError, OSError):
                tensors, meta = read_tensors(self.store.folder.fetch(self.name))
                if meta.get("key") == self.key:
                    return kind.from_tensors(tensors, device)
        return None

    def write(self, state: State) -> None:
        """Replace it."""
        # Cloned because safetensors refuses tensors that share memory.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors().items()}
        write_tensors(self.store.root / self.name, tensors, {"key": self.key})
        self.store.folder.publish(self.name)

    def remove(self) -> None:
        """Remove it, if it is there."""
        if self.store.folder.exists(self.name):
            self.store.folder.delete([self.name])
