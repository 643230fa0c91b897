"""From the folder of a card to a set that networks can be trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ddnl_ray.card import FORMAT_VERSION
from ddnl_ray.data import Normalise, Zca
from ddnl_ray.distill import Distilled
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.files import read_tensors
from ddnl_ray.models import NetworkSpec

FILE = "card.json"


@dataclass(frozen=True)
class Card:
    """A distilled set with its card.

    Attributes:
        folder: Where it lies.
        about: The content of ``card.json``.
        training: The set, on the CPU.
        transform: How pixels in [0, 1] become such images.
    """

    folder: Path
    about: Mapping[str, Any]
    training: Distilled
    transform: Normalise | Zca

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return tuple(self.about["classes"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.training.images.shape[1:]
        return channels, height, width

    @property
    def network(self) -> NetworkSpec:
        """The network of the expected accuracy."""
        return NetworkSpec(**self.about["network"])

    @property
    def recipe(self) -> EvalRecipe:
        """How networks are trained on the set."""
        return EvalRecipe(**self.about["evaluation"])

    def to(self, device: torch.device | str) -> Card:
        """Return the same card with its tensors on ``device``."""
        training = replace(
            self.training, images=self.training.images.to(device), labels=self.training.labels.to(device)
        )
        return replace(self, training=training, transform=self.transform.to(device))


def read_about(folder: Path) -> dict[str, Any]:
    """Read ``card.json``.

    Raises:
        RequestError: The folder holds no card, or one of a later version.
    """
    path = folder / FILE
    if not path.is_file():
        raise RequestError(f"{folder} is not a card: {_instead(folder)}")
    try:
        about = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise RequestError(
            f"{path} is not a card: it cannot be read as JSON ({error}); fetch it again, or run its trial again"
        ) from error
    if not isinstance(about, dict) or "format_version" not in about or "images" not in about:
        raise RequestError(
            f"{path} is not the card of a distilled set: it must be a mapping with format_version and images; "
            "name the folder of a finished trial (RUN/trials/TRIAL)"
        )
    version = about["format_version"]
    if version != FORMAT_VERSION:
        raise RequestError(
            f"{path} has format_version {version!r}, but this ddnl-ray reads {FORMAT_VERSION}; use the version that "
            f"wrote it ({about.get('code_version', 'unknown')}) or a later one"
        )
    return about


def read_card(folder: Path) -> Card:
    """Read a card and its set, after all the checks of :func:`ddnl_ray.cards.problems`.

    Raises:
        RequestError: The folder holds no card.
        CorruptFileError: The card or its files are damaged; the message names everything that is wrong.
    """
    from ddnl_ray.cards.check import problems

    about = read_about(folder)
    found = problems(folder, about)
    if found:
        raise CorruptFileError(
            f"the card {folder} is damaged: {'; '.join(found)}. Fetch the folder again, or run its trial again"
        )
    return Card(folder, about, read_set(folder, about), read_transform(folder, about))


def read_set(folder: Path, about: Mapping[str, Any]) -> Distilled:
    """Return the set of a card as it lies there, unchecked."""
    tensors, _ = read_tensors(folder / about["images"]["file"])
    formation = about.get("formation") or {}
    return Distilled(
        tensors["images"],
        tensors["labels"],
        about["step_size"],
        factor=formation.get("factor", 1),
        scores=about["labels"]["kind"] == "scores",
        mirrored="mirror" in formation,
    )


def read_transform(folder: Path, about: Mapping[str, Any]) -> Normalise | Zca:
    """Return the transform of a card, unchecked."""
    transform = about["transform"]
    if transform["kind"] == "zca":
        tensors, _ = read_tensors(folder / transform["file"])
        return Zca(tensors["mean"], tensors["whiten"], tensors["unwhiten"])
    return Normalise(torch.tensor(transform["mean"]), torch.tensor(transform["std"]))


def _instead(folder: Path) -> str:
    """Say what a folder without a card may be, and what to name."""
    if not folder.exists():
        return "there is nothing; name the folder that holds card.json (RUN/trials/TRIAL)"
    cards = sorted(path.parent for path in folder.glob(f"trials/*/{FILE}"))
    if cards:
        return f"it is a run with {len(cards)} cards; name one, for example {cards[0]}"
    return f"it holds no {FILE}; name the folder of a finished trial (RUN/trials/TRIAL), not of the method full"
