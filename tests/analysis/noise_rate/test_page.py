from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from analysis.noise_rate import Findings, render_page
from analysis.noise_rate.page import data_uri

Make = Callable[..., Findings]


def pixels(found: Findings, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (len(found.suspects), channels, 8, 8)).astype(np.uint8)


def decoded(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contact_sheet_holds_the_suspects(make: Make, channels: int) -> None:
    found = make({1: [0, 7], 2: [14]})
    images = pixels(found, channels)
    page = render_page(found, images)
    uris = re.findall(r'<img src="([^"]+)"', page)
    assert len(uris) == 3
    for uri, image in zip(uris, images, strict=True):
        np.testing.assert_array_equal(decoded(uri), image[0] if channels == 1 else image.transpose(1, 2, 0))
    assert page.count("→") == 3
    assert "&lt;bee&gt; → ant" in page
    assert "<bee>" not in page


def test_the_page_needs_no_other_file(make: Make) -> None:
    found = make({1: [0, 7]})
    page = render_page(found, pixels(found))
    assert "http" not in page
    targets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert targets
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    anchors = {target[1:] for target in targets if target.startswith("#")}
    assert anchors == set(re.findall(r'<section id="(\w+)"', page))
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page


def test_the_page_says_what_was_found(make: Make) -> None:
    found = make({1: [0, 7]})
    page = render_page(found, pixels(found))
    assert "An estimated" in page
    assert "true rate, known here" in page
    assert "Of\nall suspects 100.0 % are truly wrong." in page
    assert "Corollary IV is not given" in page
    assert "ddnl sweep sweeps/quickstart.yaml --name suggested-labels" in page
    unknown = render_page(make({1: [0, 7]}, clean=None), pixels(found))
    assert "known here" not in unknown
    assert "truly" not in unknown


def test_clean_labels_have_a_page_too(make: Make) -> None:
    page = render_page(make({}), np.empty((0, 1, 8, 8), dtype=np.uint8))
    assert "No label stands out." in page
    assert "No pair of classes is confused" in page
    assert "look clean" in page


def test_large_images_are_reduced() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 200, 200)).astype(np.uint8)
    assert decoded(data_uri(image)).shape == (96, 96, 3)
