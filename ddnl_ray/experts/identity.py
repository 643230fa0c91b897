"""The names of expert buffers: hashes of all that determines their snapshots."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ddnl_ray.experts.policy import PolicySource
from ddnl_ray.experts.recipe import ExpertRecipe
from ddnl_ray.experts.segments import FORMAT_VERSION
from ddnl_ray.files import digest
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True)
class BufferId:
    """All that determines an expert buffer, and how long its recipe trains.

    Attributes:
        data: Fingerprint of the prepared data.
        labels: SHA-256 of the observed labels of its training part.
        recipe: How experts are trained.
        seed: Root of the experts' seed tree.
        dtype: How snapshots are stored: ``float32``, ``bfloat16`` or ``float16``.
        policy: What the experts learn from; None: every image, with its label.
    """

    data: str
    labels: str
    recipe: ExpertRecipe
    seed: int
    dtype: str = "float32"
    policy: PolicySource | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the snapshots: everything but the number of epochs."""
        recipe = self.recipe.identity
        del recipe["epochs"]
        plain = {"data": self.data, "labels": self.labels, "recipe": recipe, "seed": self.seed, "dtype": self.dtype}
        return plain if self.policy is None else plain | {"policy": self.policy.identity}

    @property
    def key(self) -> str:
        """The folder's name: 16 hexadecimal digits."""
        return key_of(self.identity)

    def seeds(self, index: int) -> SeedTree:
        """Return the seed tree of one expert: own to the data and the labels, whatever the recipe."""
        return SeedTree.root(self.seed).child("expert", self.data, self.labels, index)


def key_of(about: dict[str, Any]) -> str:
    """Return the key of a buffer from its identity, or from its description, which contains it."""
    names = [field.name for field in dataclasses.fields(BufferId)]
    identity = {name: about.get(name) for name in names if name != "policy" or name in about}
    return digest({"format": FORMAT_VERSION, **identity})
