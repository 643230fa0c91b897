"""All figures of a run together, and the command that writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from analysis.figures import Material, catalogue
from analysis.figures.__main__ import main
from ddnl_ray.results import write_frame

LawRun = Callable[..., tuple[Path, pd.DataFrame]]
DRAWN = ["accuracy-symmetric", "rates-symmetric", "images", "bounds", "scaling"]
SKIPPED = ["accuracy-asymmetric", "accuracy-natural", "rates-asymmetric", "label-sets"]


def figures(*arguments: Path | str) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def names(run: tuple[Path, pd.DataFrame]) -> list[str]:
    return [entry.name for entry in catalogue(Material.of([run])).entries if entry.draw is not None]


def test_a_run_gives_every_figure_it_has_the_results_for(run_folder: Path, sweep: pd.DataFrame) -> None:
    write_frame(run_folder / "results.parquet", sweep, "val_noisy")
    result = figures(run_folder)
    assert result.exit_code == 0, result.output
    folder = run_folder / "figures"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.{kind}" for name in DRAWN for kind in ("svg", "pdf", "png")
    )
    for name in DRAWN:
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 100
        assert f"{name}: {folder / name}.svg .pdf .png" in result.output
    for name in SKIPPED:
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"{name}: ")]
        assert line.startswith(f"{name}: skipped. No ")
        assert line.endswith((".", ")."))
    assert "The run does not say how many training images" in result.output  # there is no summary.json
    assert result.output.splitlines()[-1].startswith("Selected on val_noisy")


def test_mixed_runs_are_joined(law_run: LawRun, tmp_path: Path) -> None:
    first, second = law_run("first"), law_run("second", 6.0, "asymmetric", "test")
    result = figures(first[0], second[0], first[0], "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = {path.stem for path in (tmp_path / "out").iterdir()}
    assert found == {f"{what}-{noise}" for what in ("accuracy", "rates") for noise in ("symmetric", "asymmetric")} | {
        "bounds",
        "scaling",
    }
    assert "The run has no transition matrix of this noise." in result.output
    assert "WARNING: selected on the test set" in result.output  # one of the two was


def test_several_runs_go_to_the_working_folder(
    law_run: LawRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [law_run(name)[0] for name in ("first", "second")]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "scaling: figures/scaling.svg .pdf .png" in figures(*runs).output
    assert (tmp_path / "here" / "figures" / "scaling.pdf").is_file()


def test_one_seed_gives_the_same_figures_without_bands(law_run: LawRun) -> None:
    run, frame = law_run("law")
    alone = frame[frame["noise_seed"].eq(0)]
    assert names((run, alone)) == names((run, frame))
    figure = catalogue(Material.of([(run, alone)])).named("accuracy-symmetric").draw
    assert figure is not None
    assert list(figure().axes[0].collections) == []


def test_failed_cells_leave_the_rest(law_run: LawRun) -> None:
    run, frame = law_run("law")
    failed = frame["noise_rate"].eq(0.6)
    frame.loc[failed, "accuracy"] = None
    frame.loc[failed, "outcome"] = "failed"
    assert names((run, frame)) == ["accuracy-symmetric", "rates-symmetric", "bounds", "scaling"]
    frame["outcome"] = "failed"
    found = catalogue(Material.of([(run, frame)]))
    assert [entry.name for entry in found.entries if entry.draw is not None] == []
    assert all(entry.reason.endswith((".", ").")) for entry in found.entries)


def test_no_rows_and_no_noise(law_run: LawRun) -> None:
    run, frame = law_run("law")
    assert names((run, frame.iloc[:0])) == []
    clean = frame[frame["noise"] == "none"]
    assert names((run, clean)) == ["accuracy-clean", "bounds", "scaling"]


def test_labels_that_are_all_wrong_have_no_bounds(law_run: LawRun) -> None:
    run, frame = law_run("law")
    frame.loc[frame["noise_rate"].eq(0.6), ["noise_rate", "noise_rate_realised"]] = 1.0
    bounds = catalogue(Material.of([(run, frame)])).named("bounds")
    assert bounds.draw is not None
    bounds.draw()
    assert "No bound holds where every label is wrong." in bounds.notes


def test_wrong_requests_say_what_is_wrong(tmp_path: Path, law_run: LawRun) -> None:
    result = figures(tmp_path / "none")
    assert result.exit_code == 2
    assert "is not a run folder" in result.output
    run, _ = law_run("law")
    assert figures(run, "--split", "train").exit_code == 2
    wrong = figures(run, "--i-min", "-1", "--i-clean", "1")
    assert wrong.exit_code == 2
    assert "i_min" in wrong.output.lower()
