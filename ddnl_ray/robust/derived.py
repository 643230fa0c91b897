"""What is made once of the data and shared: extractors, scores, curated labels; named by what determines them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddnl_ray.data import PreparedData
from ddnl_ray.errors import CorruptFileError
from ddnl_ray.experts import ExpertStore
from ddnl_ray.experts.store import DERIVED
from ddnl_ray.files import canonical, digest, read_tensors, write_tensors
from ddnl_ray.seeds import SeedTree

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Inputs:
    """What derived things are made of.

    Attributes:
        data: Prepared data, on the device that works.
        labels: Observed labels of the training part, int64 [N], on the device.
        store: Experts, and what was derived before.
    """

    data: PreparedData
    labels: Tensor
    store: ExpertStore


class Derived(ABC):
    """Something made once; a frozen dataclass of what determines it."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that determines it, as JSON."""

    @property
    def expert_epochs(self) -> float | None:
        """What making it takes, in epochs of one expert; None: it is not known before."""
        return None

    @abstractmethod
    def make(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return its tensors, and what is said of them as JSON."""

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        return digest({"format": FORMAT_VERSION, "kind": self.kind, **self.identity})

    @property
    def seed(self) -> SeedTree:
        """Where its random numbers come from: own to what determines it."""
        return SeedTree.root(int(self.identity["seed"])).child(self.kind, self.key)

    @property
    def name(self) -> str:
        """Its file in a store."""
        return f"{DERIVED}/{self.kind}-{self.key}.safetensors"

    def path(self, root: Path) -> Path:
        """Return its file below the store's folder on this machine."""
        return root / self.name

    def is_stored(self, store: ExpertStore) -> bool:
        """Return whether a store holds it."""
        return store.folder.exists(self.name)

    def build(self, inputs: Inputs) -> None:
        """Make it, unless the store holds it; it is on this machine afterwards."""
        root = inputs.store.root
        bring(self, inputs.store)
        if not self.is_stored(inputs.store):
            started = time.perf_counter()
            tensors, about = self.make(inputs)
            seconds = round(time.perf_counter() - started, 3)
            # Cloned because safetensors refuses tensors that share memory.
            kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            meta = {
                "format": FORMAT_VERSION,
                "identity": self.identity,
                "about": about,
                "seconds": seconds,
                "sha256": checksum(kept),
            }
            write_tensors(self.path(root), kept, meta)
            inputs.store.folder.publish(self.name)

    def read(self, root: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return its tensors, on the CPU, and what is said of them.

        Raises:
            CorruptFileError: The file is not there, not readable, of another version, or fails its checksum.
        """
        path = self.path(root)
        if not path.is_file():
            raise CorruptFileError(f"{path} is not there; run the sweep again to have it made")
        tensors, meta = read_tensors(path)
        if meta.get("format") != FORMAT_VERSION or canonical(meta.get("identity")) != canonical(self.identity):
            raise CorruptFileError(f"{path} does not hold what its name says; add --rebuild to have it made again")
        if meta.get("sha256") != checksum(tensors):
            raise CorruptFileError(f"{path} does not match its checksum; add --rebuild to have it made again")
        os.utime(path)
        return tensors, meta["about"]


def bring(thing: Any, store: ExpertStore) -> None:
    """Bring what a store holds of everything derived that a thing is made of, and of itself, to this machine.

    Args:
        thing: Something derived, a policy, a buffer's name, a preparation, or a tuple of such.
        store: The store; where it is a folder of this machine, there is nothing to do.
    """
    if not store.folder.is_remote:
        return
    if isinstance(thing, tuple):
        for each in thing:
            bring(each, store)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            bring(getattr(thing, field.name), store)
        if isinstance(thing, Derived) and thing.is_stored(store):
            store.folder.keep(thing.name)
            store.use(thing.name)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and values of tensors on the CPU."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
