from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.protocol import Change, Protocol
from ddnl_ray.errors import RequestError
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES, part_settings
from ddnl_ray.sweep.protocol import protocol_of

SHIPPED = Path(__file__).parents[2] / "sweeps"
DATM = {"noise": "symmetric", "noise_rate": 0.4, "label_set": None, "base_method": "datm", "variant": "none", "ipc": 10}


def write(run: Path, **sections: Any) -> Path:
    """A run folder of CIFAR-10 with the recipe's full size, but for some sections."""
    grid = {"noise": [{"kind": "symmetric", "rate": 0.4}], "method": ["datm", "datm+tad", "full"]}
    data = {"name": "cifar10", "val_fraction": 0.1}
    document = {"name": "mine", "data": data, "grid": grid} | sections
    (run / "sweep.yaml").write_text(yaml.safe_dump(document))
    return run


def params(base: str, *parts: str, **changes: Any) -> str:
    """The column of a trial at the recipe's values, but for some."""
    noise = NoiseConfig("symmetric", 0.4)
    values = dict(RECIPES[base]("cifar10", 10, noise).params)
    for part in parts:
        values |= part_settings(part, base, "cifar10", noise)
    return json.dumps(values | changes)


def read(run: Path, **values: Any) -> Protocol:
    found = protocol_of(run)
    assert found is not None
    protocol = found({"cell": "c", "params": params("datm"), **DATM, **values})
    assert protocol is not None
    return protocol


def said(protocol: Protocol) -> list[str]:
    return [f"{change.kind}: {change}" for change in protocol.changes]


def test_the_recipe_at_full_size_changes_nothing(tmp_path: Path) -> None:
    assert read(write(tmp_path)) == Protocol(
        noise_map=None,
        zca=True,
        recipe_zca=True,
        width=128,
        usual_width=128,
        held_out=0.1,
        selected_on="val_noisy",
        changes=(),
    )


def test_what_is_spelt_out_as_in_the_recipe_changes_nothing(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        budget={"experts": 100, "expert_epochs": 100, "eval_epochs": 1001},
        experts={"lr": 0.01, "precision": "tf32"},
        evaluate={"batch_size": 128},
        model={"name": "convnet3", "width": 128},
    )
    assert read(run).changes == ()
    assert read(run, params=params("datm", lr_y=2.0)).changes == ()


def test_a_smaller_budget_smaller_data_and_other_settings_are_told(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        data={"name": "cifar10", "subset": 2500, "test_subset": 2000, "zca": False},
        budget={"experts": 5, "expert_epochs": 7, "eval_epochs": 120, "full_epochs": 30},
        experts={"lr": 0.05},
        evaluate={"lr": 0.02, "full": {"batch_size": 64}},
        model={"width": 32},
        search={"select_on": "test"},
    )
    protocol = read(run, params=params("datm", iterations=50, syn_steps=10))
    assert said(protocol) == [
        "data: data.subset 2500 instead of all",
        "data: data.test_subset 2000 instead of all",
        "budget: budget.eval_epochs 120 instead of 1001",
        "budget: budget.experts 5 instead of 100",
        "budget: budget.expert_epochs 7 instead of 100",
        "budget: datm.iterations 50 instead of 10000",
        "settings: datm.syn_steps 10 instead of 80",
        "settings: evaluate.lr 0.02 instead of none",
        "settings: experts.lr 0.05 instead of 0.01",
    ]
    assert (protocol.width, protocol.zca, protocol.recipe_zca, protocol.selected_on) == (32, False, True, "test")
    full = read(run, base_method="full", ipc=None, params="{}")
    assert said(full)[2:] == [
        "budget: budget.full_epochs 30 instead of 100",
        "settings: evaluate.full.batch_size 64 instead of 256",
    ]


def test_what_a_study_searches_is_searched_whatever_won(tmp_path: Path) -> None:
    run = write(tmp_path, search={"trials": 2, "space": {"datm.lr_y": {"choice": [2, 5]}}})
    protocols = {read(run, params=params("datm", lr_y=value)) for value in (2, 5)}
    assert [said(protocol) for protocol in protocols] == [["settings: datm.lr_y searched instead of 2"]]


def test_parts_have_their_settings_and_the_extractor_its_own(tmp_path: Path) -> None:
    run = write(tmp_path, extractor={"epochs": 60, "network": "convnet3", "width": 32})
    protocol = read(run, variant="tad", params=params("datm", "tad"))
    assert protocol.settings == (("tad.loops", "both"), ("tad.consistency_weight", 0.1))
    assert said(protocol) == [
        "budget: extractor.epochs 60 instead of 500",
        "settings: extractor.network convnet3 instead of resnet18bn",
        "settings: extractor.width 32 instead of the usual",
    ]
    outer = read(run, variant="tad", params=params("datm", "tad", **{"tad.loops": "outer"}))
    assert outer.changes == (Change("settings", "tad.loops", "outer", "both"),)


def test_the_map_is_the_grids_and_the_cells_where_it_has_several(tmp_path: Path) -> None:
    row = {"noise": "asymmetric", "noise_rate": 0.4}
    entry = {"kind": "asymmetric", "rate": 0.4}
    for maps, cell, expected in (
        ([None], "c", "ddlnl"),
        (["tad"], "c", "tad"),
        ([None, "tad"], "asymmetric-0.4_datm_ipc10_n0_s0-00", "ddlnl"),
        ([None, "tad"], "asymmetric-0.4-tad_datm_ipc10_n0_s0-00", "tad"),
        ([None, "tad"], "c", None),
    ):
        noise = [entry if name is None else entry | {"map": name} for name in maps]
        run = write(tmp_path, grid={"noise": noise, "method": ["datm"]})
        assert read(run, cell=cell, **row).noise_map == expected


def test_a_run_that_does_not_say_has_no_protocol(tmp_path: Path) -> None:
    assert protocol_of(tmp_path) is None
    found = protocol_of(write(tmp_path))
    assert found is not None
    assert found({"cell": "c", "params": "{}", **DATM, "base_method": "mtt"}) is None
    (tmp_path / "sweep.yaml").write_text("grid: 3")
    with pytest.raises(RequestError):
        protocol_of(tmp_path)


@pytest.mark.parametrize("name", ["tad_table1_cifar10", "tad_table2_cifar10n", "sgr_tiat_table2", "rdc_table1"])
def test_the_shipped_sweeps_of_tables_run_at_full_size(tmp_path: Path, name: str) -> None:
    document = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    document.pop("profiles")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
    base, _, part = next(method for method in document["grid"]["method"] if "+" in method).partition("+")
    parts = part.split("+")
    row = {"base_method": base, "variant": "_".join(parts), "params": params(base, *parts)}
    protocol = read(tmp_path, **row)
    assert protocol.changes == ()
    assert protocol.width == protocol.usual_width
