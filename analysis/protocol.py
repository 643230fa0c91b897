"""How the rows of a run were made, as far as a printed number depends on it, and why two numbers are not comparable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.names import CORESETS, listed
from analysis.published import Accuracy, Paper
from analysis.scores import Setting

ENOUGH_REPLICATES = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is not the recipe's.

    Attributes:
        kind: ``data``, ``budget`` or ``settings``.
        name: The setting, as a sweep file names it.
        ours: What the run has, as text; ``"searched"`` for a parameter of a study.
        recipe: What the recipe has, as text.
    """

    kind: str
    name: str
    ours: str
    recipe: str

    def __str__(self) -> str:
        """Say it, for example ``"budget.experts 5 instead of 100"``."""
        return f"{self.name} {self.ours} instead of {self.recipe}"


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a group of rows was made.

    Attributes:
        noise_map: The map of asymmetric noise; None for other noise.
        zca: Whether the images are whitened.
        recipe_zca: Whether the recipe whitens them.
        width: Of the network of distillation; None if it has none.
        usual_width: The field's.
        held_out: Share of the training images that are kept for selection.
        selected_on: The split on which trials and epochs were chosen.
        changes: What is not the recipe's.
        settings: The values of the parameters that printed ablations change.
    """

    noise_map: str | None
    zca: bool
    recipe_zca: bool
    width: int | None
    usual_width: int | None
    held_out: float
    selected_on: str
    changes: tuple[Change, ...]
    settings: tuple[tuple[str, Any], ...] = ()

    def satisfies(self, cell: Accuracy) -> bool:
        """Return whether the parameters are those of a printed configuration; () is any."""
        own = dict(self.settings)
        return all(name in own and own[name] == value for name, value in cell.settings)

    def deviates(self, cell: Accuracy) -> bool:
        """Return whether some parameter of a printed configuration is not the recipe's here."""
        return bool({change.name for change in self.changes} & {name for name, _ in cell.settings})


ProtocolOf = Callable[[Mapping[str, Any]], Protocol | None]
"""From a row of the result table to how it was made; None where the run does not say."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why two numbers are not comparable.

    Attributes:
        kind: ``noise_map``, ``backbone``, ``eval_backbone``, ``width``, ``data``, ``budget``, ``settings``,
            ``selection``, ``whitening``, ``replicates`` or ``unrecorded``.
        text: In words.
    """

    kind: str
    text: str


def reasons(
    setting: Setting, replicates: int, protocol: Protocol | None, cell: Accuracy, paper: Paper
) -> tuple[Reason, ...]:
    """Return why a mean of ours is not comparable with a printed one; () if nothing known speaks against it.

    Args:
        setting: What was run.
        replicates: Number of replicates (noise draw and seed) behind our mean.
        protocol: How it was run; None if the run does not say.
        cell: The printed accuracy.
        paper: The paper that prints it.
    """
    found = [
        *_noise(setting, protocol, cell, paper),
        *network_reasons(setting, cell),
        *(_run(setting, protocol, cell, paper) if protocol is not None else _UNRECORDED),
    ]
    if replicates < ENOUGH_REPLICATES:
        counted = "1 replicate" if replicates == 1 else f"{replicates} replicates"
        found.append(Reason("replicates", f"replicates: {counted}, fewer than {ENOUGH_REPLICATES}"))
    return tuple(found)


_UNRECORDED = (
    Reason(
        "unrecorded",
        "protocol: the run's sweep.yaml is missing or lacks this method or its settings, so what was run is unknown",
    ),
)


def _noise(setting: Setting, protocol: Protocol | None, cell: Accuracy, paper: Paper) -> list[Reason]:
    """Return whether classes are mistaken for others than in the paper."""
    if {setting.noise, cell.noise} <= {"none", "symmetric", "natural"}:
        return []
    ours = _map_name(setting.noise, protocol.noise_map if protocol is not None else None)
    theirs = _map_name(cell.noise, paper.maps.get(cell.dataset))
    if ours == theirs and None not in (ours, theirs):
        return []
    return [
        Reason(
            "noise_map",
            f"noise map: ours {ours or 'not recorded'}, the paper's {theirs or f'not told for {cell.dataset}'}",
        )
    ]


def _map_name(noise: str, name: str | None) -> str | None:
    return noise if noise == "pairflip" else name


def network_reasons(setting: Setting, cell: Accuracy) -> list[Reason]:
    """Return whether another network distilled or was trained; none distils a coreset or the whole set."""
    found = []
    if setting.base_method not in ("full", *CORESETS) and setting.backbone != cell.backbone:
        found.append(Reason("backbone", f"backbone: distilled with {setting.backbone}, the paper with {cell.backbone}"))
    ours = setting.eval_backbone or setting.backbone
    if ours != cell.eval_backbone:
        found.append(Reason("eval_backbone", f"evaluation: trained {ours} on the set, the paper {cell.eval_backbone}"))
    return found


def _run(setting: Setting, protocol: Protocol, cell: Accuracy, paper: Paper) -> list[Reason]:
    """Return what of the run itself is not as in the paper."""
    found = []
    width = protocol.usual_width
    if setting.backbone == cell.backbone:
        width = paper.widths.get(setting.base_method, width)
    if protocol.width != width:
        found.append(Reason("width", f"width: {setting.backbone} of width {protocol.width} instead of {width}"))
    printed = {name for name, _ in cell.settings}
    for kind in ("data", "budget", "settings"):
        changes = [str(change) for change in protocol.changes if change.kind == kind and change.name not in printed]
        if changes:
            found.append(Reason(kind, f"{kind}: {listed(changes)}"))
    zca = protocol.recipe_zca or setting.base_method in paper.whitened
    if protocol.zca != zca:
        words = ("whitened", "not whitened") if protocol.zca else ("not whitened", "whitened")
        found.append(Reason("whitening", f"whitening: our images are {words[0]}, the paper's {words[1]}"))
    if protocol.selected_on != paper.select_on:
        held_out = f", {100 * protocol.held_out:g} % of the training images" if protocol.held_out else ""
        found.append(
            Reason(
                "selection",
                f"selection: ours on {protocol.selected_on}{held_out}, the paper's on {paper.select_on}",
            )
        )
    elif protocol.held_out:
        share = f"{100 * protocol.held_out:g} % of the training images"
        found.append(Reason("data", f"data: {share} held out (data.val_fraction), none in the paper"))
    return found
