"""Randomness as an argument: one tree of named seeds from which every generator is drawn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class SeedTree:
    """A node of the seed tree.

    Children are addressed by name, so adding a stage or a replicate never shifts the randomness of another, and
    nothing that a generator has already produced needs to be saved to resume: step ``i`` of a loop draws from
    ``tree.child("step", i)``.

    Attributes:
        path: The names from the root to this node.
    """

    path: tuple[str | int, ...]

    @classmethod
    def root(cls, seed: int) -> SeedTree:
        """Return the root of the tree of a study."""
        return cls((int(seed),))

    def child(self, *names: str | int) -> SeedTree:
        """Return the node below this one with the given names."""
        return SeedTree(self.path + names)

    def entropy(self) -> int:
        """Return 128 bits that depend on every name of the path, and on nothing else."""
        text = "\x1f".join(f"{type(part).__name__}:{part}" for part in self.path)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")

    def numpy(self) -> np.random.Generator:
        """Return a fresh NumPy generator for this node."""
        return np.random.default_rng(self.entropy())

    def torch(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a fresh torch generator for this node on ``device``."""
        generator = torch.Generator(device=device)
        generator.manual_seed(self.entropy() & (2**63 - 1))
        return generator
