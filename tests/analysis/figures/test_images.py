from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from analysis.figures import DARK, LIGHT
from analysis.figures.images import GAP, image_blocks, images_figure


def test_one_block_per_method_and_one_row_per_rate(run_folder: Path, sweep: pd.DataFrame) -> None:
    blocks = image_blocks([(run_folder, sweep)])
    assert [block.key.method for block in blocks] == ["datm", "datm+tad"]
    figure = images_figure(blocks)
    for axis, method in zip(figure.axes, ("datm", "datm+tad"), strict=True):
        assert axis.get_title(loc="left") == method
        assert [text.get_text() for text in axis.get_yticklabels()] == ["no noise", "30 %", "60 %"]
        said = [text.get_text() for text in axis.texts]
        assert "digits · symmetric noise · convnet3 · IPC 1" in said
        assert len([text for text in said if text.endswith(" %")]) == 3
        (image,) = axis.images
        assert np.asarray(image.get_array()).shape == (3 * 8 + 2 * GAP, 80, 3)


def test_rows_are_the_previews_on_the_paper_of_the_theme(run_folder: Path, sweep: pd.DataFrame) -> None:
    blocks = image_blocks([(run_folder, sweep)])[:1]
    for theme, paper in ((LIGHT, (255, 255, 255)), (DARK, (0x17, 0x1B, 0x20))):
        pixels = np.asarray(images_figure(blocks, theme=theme).axes[0].images[0].get_array())
        assert (pixels[:8] == 128).all()
        assert (pixels[8 : 8 + GAP] == paper).all()
        assert (pixels[8 + GAP : 16 + GAP] == 128).all()


def test_smaller_previews_are_enlarged_by_whole_factors(run_folder: Path, sweep: pd.DataFrame) -> None:
    for path in (run_folder / "trials").glob("datm-0.6-1-*/preview.png"):
        Image.new("L", (40, 4), 7).save(path)
    blocks = image_blocks([(run_folder, sweep)])[:1]
    pixels = np.asarray(images_figure(blocks).axes[0].images[0].get_array())
    assert pixels.shape == (3 * 8 + 2 * GAP, 80, 3)
    assert (pixels[-8:] == 7).all()


def test_runs_without_previews_have_no_block(tmp_path: Path, run_folder: Path, sweep: pd.DataFrame) -> None:
    assert image_blocks([(tmp_path / "empty", sweep)]) == []
    assert image_blocks([(run_folder, sweep[sweep["base_method"].isin(["random", "full"])])]) == []
    assert image_blocks([(run_folder, sweep.iloc[:0])]) == []
