"""The sweep files that ship: all of them parse and plan, every profile too, on stand-ins for the images."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from analysis.published import accuracies
from ddnl_ray.data import Dataset
from ddnl_ray.recipes import RECIPES, part_settings
from ddnl_ray.robust import compose
from ddnl_ray.sweep import plan as planning
from ddnl_ray.sweep.checks import check_parameter_names
from ddnl_ray.sweep.plan import Plan, make_plan
from ddnl_ray.sweep.read import read_sweep

MakePlan = Callable[[str, str | None], Plan]

SWEEPS = Path(__file__).parents[2] / "sweeps"
FILES = sorted(path.name for path in SWEEPS.glob("*.yaml"))
SHAPES = {"cifar10": (10, 5000, 9), "cifar100": (100, 500, 9), "tinyimagenet": (200, 100, 16)}
"""Classes, training images per class (of Tiny-ImageNet a fifth), and a side that the networks still take."""


def profiles(name: str) -> list[str | None]:
    return [None, *(yaml.safe_load((SWEEPS / name).read_text()).get("profiles") or {})]


CASES = [(name, profile) for name in FILES for profile in profiles(name)]
IDS = [f"{name.removesuffix('.yaml')}{':' + profile if profile else ''}" for name, profile in CASES]


@functools.cache
def stand_in(name: str, whole: bool) -> Dataset:
    """The data set's labels, on black images of a few pixels; ``whole``: fewer, of the size that VGG-11 takes."""
    classes, each, side = SHAPES[name]
    each, side = (each // 10, 32) if whole else (each, side)
    labels, test_labels = (torch.arange(classes).repeat(num) for num in (each, 10_000 // classes))
    return Dataset(
        name=name,
        classes=tuple(map(str, range(classes))),
        train_images=torch.zeros(len(labels), 3, side, side, dtype=torch.uint8),
        train_labels=labels,
        test_images=torch.zeros(len(test_labels), 3, side, side, dtype=torch.uint8),
        test_labels=test_labels,
        max_value=255,
        clean_labels=labels,
        licence="",
        source="a stand-in",
    )


@pytest.fixture(scope="module")
def human_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with label files in the form of CIFAR-N; two of five labels of the noisiest sets are wrong."""
    root = tmp_path_factory.mktemp("labels")
    columns = {"cifar10": ("aggre_label", "random_label1", "worse_label"), "cifar100": ("noisy_label",)}
    for name, names in columns.items():
        classes, each, _ = SHAPES[name]
        clean = torch.arange(classes).repeat(each)
        given = (clean + (torch.arange(len(clean)) // classes % 5 < 2)) % classes
        table = {"clean_label": clean.numpy(), **dict.fromkeys(names, given.numpy())}
        pq.write_table(pa.table(table), root / f"{name}n_labels.parquet")
    return root


@pytest.fixture(scope="module")
def planned(human_labels: Path) -> MakePlan:
    """Plan a shipped file, once, without whitening, which does not matter here and takes long."""
    load = planning.load

    @functools.cache
    def make(name: str, profile: str | None) -> Plan:
        whole = "vgg11" in (SWEEPS / name).read_text()

        def give(name: str, *rest: Any) -> Dataset:
            return stand_in(name, whole) if name in SHAPES else load(name, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                planning, "load", lambda name, *rest: stand_in(name, whole) if name in SHAPES else load(name, *rest)
            )
            return make_plan(read_sweep(SWEEPS / name, profile, (f"data.root={human_labels}", "data.zca=false")))

    return make


@pytest.mark.parametrize(("name", "profile"), CASES, ids=IDS)
def test_it_plans(planned: MakePlan, name: str, profile: str | None) -> None:
    plan = planned(name, profile)
    grid = plan.sweep.grid
    assert {cell.config.method for cell in plan.cells} == set(grid.method)
    assert {cell.config.ipc for cell in plan.cells} - {None} == (set(grid.ipc) if grid.method != ["full"] else set())
    assert all(cell.source for cell in plan.cells)


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_it_is_for_and_is_named_after_its_file(name: str) -> None:
    text = (SWEEPS / name).read_text()
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 120
    assert read_sweep(SWEEPS / name).name == name.removesuffix(".yaml").replace("_", "-")


@pytest.mark.parametrize("name", FILES)
def test_the_options_in_its_comments_exist(name: str) -> None:
    for line in (SWEEPS / name).read_text().splitlines():
        comment = line.partition("#")[2]
        overrides = [text.strip("'") for text in re.findall(r"--set ('[^']*'|\S+)", comment)]
        profile = re.search(r"--profile (\w+)", comment)
        check_parameter_names(read_sweep(SWEEPS / name, profile and profile[1], tuple(overrides)))


@pytest.mark.parametrize(("name", "profile"), CASES, ids=IDS)
def test_profiles_do_not_write_into_the_run_of_the_whole(name: str, profile: str | None) -> None:
    if profile not in (None, "smoke"):
        assert read_sweep(SWEEPS / name, profile).name != read_sweep(SWEEPS / name).name


FULL_SIZE = [name for name in FILES if name.startswith(("trajectory", "datm_large", "tad", "sgr", "denoise"))]


def plain(params: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of the base method."""
    return {name: value for name, value in params.items() if "." not in name}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_table_is_made_at_full_size(planned: MakePlan, name: str) -> None:
    """Everything is the recipe's, but for the kind of gradient that the denoising benchmark has."""
    changed = {"grad_mode": "tesla"} if name.startswith("denoise") else {}
    for cell in planned(name, None).cells:
        config = cell.config
        composition = compose(config.method)
        recipe = RECIPES[composition.base](config.dataset, config.ipc or 0, config.noise)
        own = {name: value for name, value in config.params.items() if "." not in name}
        assert own == {**recipe.params, **(changed if config.method == "datm" else {})}
        parts = {
            name: value
            for part in composition.configs
            for name, value in part_settings(part, composition.base, config.dataset, config.noise).items()
        }
        axes = read_sweep(SWEEPS / name).grid.parameters
        dotted = {key: value for key, value in parts.items() if "." in key}
        assert {key: value for key, value in config.params.items() if "." in key and key not in axes} == dotted
        assert (config.experts, config.num_experts) == (recipe.experts, recipe.num_experts)
        assert config.evaluation == recipe.evaluation
        assert config.network == recipe.network
        assert config.repeats == (5 if config.ipc else 1)


def settings(plan: Plan) -> set[tuple[str, str, int | None]]:
    """Noise, method and ipc of every cell."""
    return {(cell.config.noise.slug(), cell.config.method, cell.config.ipc) for cell in plan.cells}


TAD_NOISES = {"none", "symmetric-0.2", "symmetric-0.4", "asymmetric-0.2", "asymmetric-0.4"}
TAD_BASES = {"mtt", "ftd", "datm", "att"}


@pytest.mark.parametrize(
    ("name", "profile", "noises", "bases", "sizes"),
    [
        (
            "tad_table1_cifar10.yaml",
            None,
            {f"{noise}-tad" if noise.startswith("a") else noise for noise in TAD_NOISES},
            TAD_BASES,
            {1, 10, 50},
        ),
        ("tad_table1_cifar100.yaml", None, TAD_NOISES, TAD_BASES, {1, 10, 50}),
        (
            "tad_table1_tinyimagenet.yaml",
            None,
            {noise for noise in TAD_NOISES if not noise.startswith("a")},
            TAD_BASES,
            {1, 10},
        ),
        (
            "tad_table1_tinyimagenet.yaml",
            "ipc50",
            {noise for noise in TAD_NOISES if not noise.startswith("a")},
            {"mtt", "datm"},
            {50},
        ),
        ("tad_table2_cifar10n.yaml", None, {"natural-worse"}, TAD_BASES - {"datm"}, {1, 10, 50}),
        ("tad_table2_cifar100n.yaml", None, {"natural-fine"}, TAD_BASES - {"datm"}, {1, 10, 50}),
    ],
)
def test_the_blocks_of_tads_tables(
    planned: MakePlan, name: str, profile: str | None, noises: set[str], bases: set[str], sizes: set[int]
) -> None:
    methods = {f"{base}{part}" for base in bases for part in ("", "+tad")}
    expected = {(noise, method, size) for noise in noises for method in methods for size in sizes}
    assert settings(planned(name, profile)) == expected | {(noise, "full", None) for noise in noises}


def test_the_ablation_of_tad_has_the_papers_six_rows(planned: MakePlan) -> None:
    rows = {
        (cell.config.params["tad.consistency_weight"], cell.config.params["tad.loops"])
        for cell in planned("tad_table3.yaml", None).cells
        if cell.config.method == "datm+tad"
    }
    assert rows == {(weight, loops) for weight in (0, 0.1) for loops in ("none", "outer", "both")}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("tad", "sgr", "tune"))])
def test_robust_methods_have_a_profile_for_cpus(name: str) -> None:
    assert "cpu" in profiles(name)


@pytest.mark.parametrize(
    ("name", "noises", "sizes"),
    [
        (
            "denoise_symmetric.yaml",
            {"none", "symmetric-0.2", "symmetric-0.4", "symmetric-0.6", "symmetric-0.8"},
            {1, 10, 50, 500, 1000},
        ),
        (
            "denoise_asymmetric.yaml",
            {"asymmetric-0.2", "asymmetric-0.4", "asymmetric-0.6", "asymmetric-0.8"},
            {1, 10, 50, 500},
        ),
        ("denoise_natural.yaml", {"natural-aggre", "natural-random1", "natural-worse"}, {1, 10, 50}),
    ],
)
def test_the_figures_of_the_denoising_benchmark(
    planned: MakePlan, name: str, noises: set[str], sizes: set[int]
) -> None:
    expected = {(noise, "datm", size) for noise in noises for size in sizes}
    assert settings(planned(name, None)) == expected | {(noise, "full", None) for noise in noises}


@pytest.mark.slow
def test_a_table_plans_on_the_real_images(real_data: Path) -> None:
    plan = make_plan(read_sweep(SWEEPS / "trajectory_cifar10.yaml", "smoke", (f"data.root={real_data}",)))
    assert {cell.config.method for cell in plan.cells} == set(RECIPES)
    assert set(plan.data) == {False, True}


@pytest.mark.parametrize(
    ("name", "paper", "table"),
    [("tad_table4.yaml", "tad", 4), *((f"rdc_table{number}.yaml", "rdc", number) for number in (1, 2, 3, 4))],
)
def test_what_a_table_prints_is_in_its_file_under_the_same_names(
    planned: MakePlan, name: str, paper: str, table: int
) -> None:
    printed = {
        (
            each.noise,
            None if each.label_set else each.noise_rate,
            each.label_set,
            each.base_method,
            each.variant,
            each.ipc,
        )
        for each in accuracies(paper)
        if each.table == table and each.base_method not in ("full", "random")
    }
    ours = set()
    for cell in planned(name, None).cells:
        noise, composition = cell.config.noise, compose(cell.config.method)
        rate = 0.0 if noise.kind == "none" else noise.rate
        ours.add((noise.kind, rate, noise.labels, composition.base, composition.variant, cell.config.ipc))
    assert printed <= ours
    assert any(">" in cell.config.method for cell in planned(name, None).cells)


def test_the_tournament_has_every_route_on_the_same_noisy_sets(planned: MakePlan) -> None:
    plan = planned("tournament.yaml", None)
    noises = {"symmetric-0.2", "symmetric-0.4", "symmetric-0.6", "pairflip-0.4"}
    assert {cell.config.noise.slug() for cell in plan.cells} == noises
    draws = len(noises) * 3
    routes = len(plan.sweep.grid.method)
    assert len(plan.cells) == draws * routes
    made = [plan.preparation(cell) for cell in plan.cells]
    cleaned = {each.key for own in made if own is not None for each in own.first if each.kind == "cleaned"}
    assert len(cleaned) == draws * 2
