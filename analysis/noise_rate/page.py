"""The page of an audit: one HTML file to read on a phone, to print and to mail, without other files or a network."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from analysis.names import counted, percent
from analysis.noise_rate.estimators import RateEstimate
from analysis.noise_rate.findings import NAMES, Findings, advice, corollary_words, headline, precision
from ddnl_ray.lnl.confident import Suspect

SHEET = 96
"""Suspects on the contact sheet."""
LARGEST = 96
"""Height and width to which larger images are reduced."""
PAIRS = 20
"""Confusions in the table."""


@dataclass(frozen=True)
class Picture:
    """A suspect on the contact sheet."""

    uri: str
    given: str
    suggested: str
    name: str
    score: float
    verdict: str


def render_page(found: Findings, images: NDArray[np.uint8]) -> str:
    """Return the page as HTML; everything that comes from data is escaped.

    Args:
        found: The outcome of an audit.
        images: Those of the first :data:`SHEET` suspects, in their order [S, C, H, W], 0 to 255, of 1 or 3 channels.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "place": _place}
    environment.globals |= {"counted": counted, "names": NAMES}
    return environment.get_template("noise_rate.html.j2").render(
        found=found,
        headline=headline(found),
        corollary=corollary_words(found),
        pairs=found.confusions[:PAIRS],
        pictures=[_picture(found, *pair) for pair in zip(found.suspects[:SHEET], images, strict=True)],
        precision=precision(found),
        steps=advice(found),
    )


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image [C, H, W] of 1 or 3 channels as PNG in a data URI, reduced to at most 96 x 96 pixels."""
    from PIL import Image

    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _picture(found: Findings, suspect: Suspect, image: NDArray[np.uint8]) -> Picture:
    labels = found.labels
    name = f"row {labels.rows[suspect.row]}" if labels.files is None else labels.files[suspect.row]
    verdict = ""
    if labels.clean is not None:
        truth = int(labels.clean[suspect.row])
        verdict = "label is right" if truth == suspect.given else f"truly {labels.classes[truth]}"
    return Picture(
        uri=data_uri(image),
        given=labels.classes[suspect.given],
        suggested=labels.classes[suspect.suggested],
        name=name,
        score=suspect.score,
        verdict=verdict,
    )


def _place(estimate: RateEstimate) -> str:
    """Return the CSS variables that draw an estimate and its interval on a scale from 0 to 100 %."""
    return f"--mean: {100 * estimate.rate:.1f}%; --low: {100 * estimate.low:.1f}%; --high: {100 * estimate.high:.1f}%"
