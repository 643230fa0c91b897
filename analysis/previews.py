"""The pictures of distilled sets: one preview per selected trial, embedded in the report."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.labels import LABEL_BYTES, ShownLabels, read_labels
from analysis.names import CORESETS
from analysis.scores import Setting, headline_rows, records, setting_of

EMBEDDED_BYTES = 24 * 2**20


@dataclass(frozen=True, slots=True)
class Preview:
    """The picture of one distilled set.

    Attributes:
        setting: What it was distilled from, and how.
        noise_seed: The noise draw.
        seed: The seed of the distillation.
        accuracy: Mean over the evaluation repeats of this trial, 0..1.
        num_repeats: Number of these repeats.
        path: The file, relative to the run folder.
        data_uri: The picture itself; None if the report holds too many bytes of pictures already.
        labels: The labels of its images; None where they cannot be read, or the report holds too many already.
        has_more_labels: Whether they were left out for the size of the report.
    """

    setting: Setting
    noise_seed: int | None
    seed: int | None
    accuracy: float
    num_repeats: int
    path: str
    data_uri: str | None
    labels: ShownLabels | None = None
    has_more_labels: bool = False


@dataclass(frozen=True, slots=True)
class PreviewGroup:
    """The pictures of one method at one IPC, so that noise settings are compared side by side.

    Attributes:
        title: For example ``"datm+tad · IPC 10"``.
        first: The first replicate of every noise setting.
        others: The other replicates.
    """

    title: str
    first: list[Preview]
    others: list[Preview]


def previews(run: Path, frame: pd.DataFrame, split: str = "test") -> list[Preview]:
    """Return the previews that exist in a run folder, those of coresets last.

    The evaluation network named first in the table scores a trial that several networks evaluated.

    Args:
        run: The run folder, with ``trials/<trial>/preview.png``.
        frame: The result table.
        split: The split of the accuracies.
    """
    by_trial: dict[str, list[dict[str, Any]]] = {}
    for row in records(headline_rows(frame, split)):
        by_trial.setdefault(row["trial"], []).append(row)
    found, embedded = [], 0
    for trial, rows in sorted(by_trial.items(), key=lambda item: _order(item[1][0])):
        file = run / "trials" / trial / "preview.png"
        if not file.is_file():
            continue
        content = file.read_bytes()
        embedded += len(content)
        accuracies = [row["accuracy"] for row in rows if row["eval_backbone"] == rows[0]["eval_backbone"]]
        found.append(
            Preview(
                setting=setting_of(rows[0]),
                noise_seed=rows[0]["noise_seed"],
                seed=rows[0]["seed"],
                accuracy=float(np.mean(accuracies)),
                num_repeats=len(accuracies),
                path=file.relative_to(run).as_posix(),
                data_uri=png_uri(content) if embedded <= EMBEDDED_BYTES else None,
            )
        )
    return found


def with_labels(run: Path, found: Iterable[Preview]) -> list[Preview]:
    """Return the previews with the labels of those that are embedded, up to :data:`analysis.labels.LABEL_BYTES`."""
    result, embedded = [], 0
    for preview in found:
        labels = read_labels((run / preview.path).parent) if preview.data_uri else None
        embedded += len(labels.text) if labels else 0
        fits = embedded <= LABEL_BYTES
        result.append(replace(preview, labels=labels if fits else None, has_more_labels=bool(labels) and not fits))
    return result


def grouped(found: list[Preview]) -> list[PreviewGroup]:
    """Group previews by data set, method, network and IPC, keeping their order."""
    groups: dict[str, list[Preview]] = {}
    for preview in found:
        setting = preview.setting
        parts = (setting.method, f"IPC {setting.ipc}", setting.dataset, setting.backbone)
        groups.setdefault(" · ".join(part for part in parts if part), []).append(preview)
    result = []
    for title, members in groups.items():
        first = {preview.setting: preview for preview in reversed(members)}
        shown = [preview for preview in members if preview is first[preview.setting]]
        others = [preview for preview in members if preview is not first[preview.setting]]
        result.append(PreviewGroup(title, shown, others))
    return result


def png_uri(content: bytes) -> str:
    """Return the bytes of a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key: data set, method, IPC, then noise, then replicate."""
    setting = setting_of(row)
    seeds = tuple(-1 if row[name] is None else row[name] for name in ("noise_seed", "seed"))
    method = (
        setting.base_method in CORESETS,
        setting.base_method,
        setting.variant != "none",
        setting.variant,
    )
    return (setting.dataset, *method, setting.ipc or 0, setting.order, seeds)
