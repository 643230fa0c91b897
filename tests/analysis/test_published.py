from __future__ import annotations

import csv
import tomllib
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from analysis.names import BASES, LABEL_SETS, NOISES
from analysis.published import COMPARED, PAPERS, accuracies, claims, parse_accuracy, parse_claim
from ddnl_ray.distill import METHODS
from ddnl_ray.errors import CorruptFileError
from ddnl_ray.noise.asymmetric import MAPS
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.robust.tad import TadConfig
from ddnl_ray.robust.tiat import TiatConfig

CELL = {
    **{"paper": "tad", "table": "1", "row": "", "dataset": "cifar10", "noise": "symmetric", "noise_rate": "0.4"},
    **{"label_set": "", "base_method": "datm", "variant": "none", "settings": "", "ipc": "10"},
    **{"backbone": "convnet3", "eval_backbone": "", "accuracy_mean": "58.2", "accuracy_std": "0.4"},
    **{"reading": "", "note": ""},
}
CLAIM = {
    **{
        "claim": "W1",
        "paper": "denoise_wild",
        "dataset": "cifar10;cifar100",
        "noise": "symmetric",
        "where": "rate 0.2",
    },
    **{"expected": "distilled > full", "statement": "It does.", "test": "Look.", "remark": ""},
}


def test_every_printed_cell_is_there() -> None:
    assert len(accuracies()) == 670
    assert Counter(cell.paper for cell in accuracies()) == {"tad": 365, "sgr_tiat": 99, "rdc": 206}
    assert [len(accuracies(paper)) for paper in COMPARED] == [365, 99, 206]
    assert Counter(cell.reading for cell in accuracies()) == {"": 607, "repaired": 21, "doubtful": 26, "unreadable": 16}
    assert sum(cell.std is not None for cell in accuracies("sgr_tiat")) == 75


def test_words_are_those_of_the_result_table() -> None:
    assert {cell.noise for cell in accuracies()} == {"none", "symmetric", "asymmetric", "pairflip", "natural"}
    assert {cell.noise for cell in accuracies()} <= set(NOISES)
    assert {cell.noise for cell in accuracies("rdc")} == {"none", "symmetric", "pairflip", "natural"}
    assert {cell.base_method for cell in accuracies()} <= set(BASES)
    assert {cell.base_method for cell in accuracies()} <= set(METHODS)
    assert {cell.label_set for cell in accuracies()} - {None} == {"random1", "worse", "fine"} <= set(LABEL_SETS)
    assert all((cell.noise == "natural") == cell.dataset.endswith("n") for cell in accuracies())
    assert all((cell.noise == "none") == (cell.noise_rate == 0) for cell in accuracies())
    assert {cell.label_set for cell in accuracies() if cell.dataset == "cifar100n"} == {"fine"}


KNOWN = [
    ("rdc", 1, ("cifar10", "pairflip", 0.4, "idm", "rdc", 10, "resnet18", "resnet18"), 41.35, None),
    ("rdc", 1, ("cifar10", "pairflip", 0.4, "idm", "rdc", 50, "resnet18", "resnet18"), 55.55, None),
    ("rdc", 6, ("cifar10", "pairflip", 0.4, "idm", "rdc", 50, "resnet18", "resnet18"), 57.77, None),
    ("rdc", 6, ("cifar10", "pairflip", 0.4, "idm", "none", 50, "vgg11", "convnet3"), 26.83, None),
    ("tad", 1, ("cifar10", "asymmetric", 0.4, "datm", "tad", 50, "convnet3", "convnet3"), 70.7, 0.3),
    ("tad", 1, ("cifar10", "none", 0.0, "full", "none", None, "convnet3", "convnet3"), 84.8, 0.1),
    ("sgr_tiat", 2, ("cifar10", "symmetric", 0.4, "datm", "sgr_tiat", 50, "convnet3", "convnet3"), 71.6, None),
]


@pytest.mark.parametrize(("paper", "table", "key", "mean", "std"), KNOWN)
def test_known_cells(paper: str, table: int, key: tuple[object, ...], mean: float, std: float | None) -> None:
    (cell,) = [
        cell
        for cell in accuracies(paper)
        if cell.table == table
        and (cell.dataset, cell.noise, cell.noise_rate, cell.base_method, cell.variant, cell.ipc) == key[:6]
        and (cell.backbone, cell.eval_backbone) == key[6:]
    ]
    assert cell.mean == pytest.approx(mean / 100)
    assert cell.std == (None if std is None else pytest.approx(std / 100))


def test_ablations_are_told_apart_by_settings_that_exist() -> None:
    prefixes = {"tad": TadConfig, "rdc": RdcConfig, "tiat": TiatConfig}
    for cell in accuracies():
        settings = dict(cell.settings)
        assert {name.partition(".")[0] for name in settings} <= set(cell.variant.split("_"))
        for name, value in cell.settings:
            part, _, field = name.partition(".")
            prefixes[part](**{field: value})  # a value out of its range is refused
    rows = {(cell.table, cell.row): cell.settings for cell in accuracies("tad") if cell.row}
    assert rows[3, "C"] == (("tad.consistency_weight", 0.0), ("tad.loops", "outer"))
    keys = [(c.paper, c.table, c.noise, c.noise_rate, c.label_set, c.settings) for c in accuracies() if c.settings]
    assert len(keys) == len(set(keys)) == 10 + 12 + 18


def test_maps_and_papers_are_known() -> None:
    for paper in PAPERS.values():
        assert all(MAPS[name][0] == dataset for dataset, name in paper.maps.items())
    assert COMPARED == ("tad", "sgr_tiat", "rdc")
    assert {claim.paper for claim in claims()} == set(PAPERS)


def test_claims_have_identifiers_and_a_test() -> None:
    names = [claim.claim for claim in claims()]
    assert names == [
        f"{letter}{i}" for letter, n in zip("WTDGR", (11, 14, 7, 6, 7), strict=True) for i in range(1, n + 1)
    ]
    assert [claim.claim for claim in claims("rdc")] == [f"R{i}" for i in range(1, 8)]
    assert next(claim for claim in claims() if claim.claim == "T3").expected.startswith("IPC 1 < full")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "symetric"}, r"line 7: noise should be one of none, .*, but is 'symetric'"),
        ({"accuracy_mean": "582"}, r"line 7: accuracy_mean should be a number from 0 to 100, but is '582'"),
        ({"accuracy_mean": "nan"}, "accuracy_mean should be a number"),
        ({"accuracy_mean": ""}, "accuracy_mean should be a number unless it is unreadable"),
        ({"ipc": ""}, "ipc should be blank for full"),
        ({"noise": "natural"}, "label_set should be one of aggre"),
        ({"note": "Smudged."}, "note should be a sentence where the reading is named"),
        ({"settings": "loops"}, "settings should be items such as"),
        ({"eval_backbone": "convnet9"}, "eval_backbone should be one of convnet3"),
    ],
)
def test_a_damaged_cell_is_refused(change: dict[str, str], message: str) -> None:
    assert parse_accuracy(CELL, 7).mean == pytest.approx(0.582)
    with pytest.raises(CorruptFileError, match=message):
        parse_accuracy(CELL | change, 7)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(CorruptFileError, match="variant should be there"):
        parse_accuracy({name: value for name, value in CELL.items() if name != "variant"}, 2)


@pytest.mark.parametrize("change", [{"test": ""}, {"dataset": "cifar10;mnist"}, {"paper": "nobody"}])
def test_a_damaged_claim_is_refused(change: dict[str, str]) -> None:
    assert parse_claim(CLAIM, 2).datasets == ("cifar10", "cifar100")
    with pytest.raises(CorruptFileError, match=next(iter(change))):
        parse_claim(CLAIM | change, 2)


def test_every_column_is_explained_and_every_file_is_packaged() -> None:
    import analysis.published as package

    folder = Path(str(files(package)))
    root = folder.parents[1]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["analysis"]
    packaged = {path for pattern in patterns for path in (root / "analysis").glob(pattern)}
    assert set(folder.glob("*.csv")) == {folder / "accuracies.csv", folder / "claims.csv"} <= packaged
    for path in folder.glob("*.csv"):
        with path.open(newline="") as file:
            for column in next(csv.reader(file)):
                assert f"``{column}``" in str(package.__doc__)
