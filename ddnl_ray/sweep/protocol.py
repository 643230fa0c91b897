"""What a run did otherwise than its recipes at full size, from its sweep file and the parameters of a trial."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.protocol import Change, Protocol, ProtocolOf
from analysis.published import accuracies
from ddnl_ray.models import NetworkSpec
from ddnl_ray.models.spec import CONVNET_DEPTHS, CONVNET_WIDTH, DOUBLING_DEPTHS, RESNET_WIDTH
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.noise.asymmetric import DEFAULT_MAPS
from ddnl_ray.recipes import RECIPES, Recipe, cleaner_recipe, extractor_of, part_settings
from ddnl_ray.robust import Composition, compose
from ddnl_ray.sweep.read import read_sweep
from ddnl_ray.sweep.schema import SweepFile

_TRAINING = ("lr", "batch_size", "momentum", "weight_decay", "cutmix", "schedule")
_EXPERTS = (*_TRAINING, "optimizer", "rho", "alpha", "schedule_epochs")
_RATED = ("symmetric", "asymmetric", "pairflip")


def protocol_of(run: Path) -> ProtocolOf | None:
    """Return how the rows of a run were made, as a function of a row; None if the folder has no ``sweep.yaml``.

    The function itself returns None for a method that the sweep file does not have, and for parameters that are not
    those of the method, as another version may have written them.

    A value counts as changed where it is not the recipe's for the method, data set, IPC and noise of the row, so a
    sweep that spells out the recipe's values changes nothing. A parameter of a study counts as searched, whatever
    value won. How numbers are computed and stored (``experts.precision``, ``experts.dtype``) is no change.

    Raises:
        RequestError: ``sweep.yaml`` is not a sweep file.
    """
    path = run / "sweep.yaml"
    if not path.is_file():
        return None
    sweep = read_sweep(path)
    return lambda row: _protocol(sweep, row)


def _protocol(sweep: SweepFile, row: Mapping[str, Any]) -> Protocol | None:
    wanted = (row["base_method"], row["variant"])
    composition = next((one for one in map(compose, sweep.grid.method) if (one.base, one.variant) == wanted), None)
    if composition is None:
        return None
    noise = _noise(sweep, row)
    recipe = RECIPES[composition.base](sweep.data.name, row["ipc"] or 0, noise)
    network = NetworkSpec(sweep.model.name or recipe.network.name, sweep.model.width or recipe.network.width)
    try:
        params = composition.settings(json.loads(row["params"] or "{}"))
    except (TypeError, ValueError):
        return None
    ablated = {name for cell in accuracies() for name, _ in cell.settings}
    changes = (
        *_data(sweep),
        *_budget(sweep, composition, recipe),
        *_parameters(sweep, composition, recipe, noise, row),
        *_training(sweep, composition, recipe),
        *(_cleaner(sweep, composition.cleaner, noise) if composition.cleaner is not None else ()),
        *(_extractor(sweep) if "tad" in composition.parts and params.value("tad.loops") == "both" else ()),
    )
    return Protocol(
        noise_map=noise.map,
        zca=recipe.zca if sweep.data.zca is None else sweep.data.zca,
        recipe_zca=recipe.zca,
        width=network.width or _usual_width(network.name),
        usual_width=_usual_width(network.name),
        held_out=sweep.data.val_fraction,
        selected_on=sweep.search.select_on,
        changes=changes,
        settings=tuple((name, params.value(name)) for name in composition.types if name in ablated),
    )


def _noise(sweep: SweepFile, row: Mapping[str, Any]) -> NoiseConfig:
    """Return the noise of a row; the cell's name tells maps apart where the grid has several."""
    kind = row["noise"]
    if kind == "natural":
        return NoiseConfig(kind, labels=row["label_set"])
    if kind not in _RATED:
        return NoiseConfig()
    rate = row["noise_rate"]
    if kind != "asymmetric":
        return NoiseConfig(kind, rate)
    default = DEFAULT_MAPS.get(sweep.data.name)
    names = dict.fromkeys(entry.map or default for entry in sweep.grid.noise if entry.kind == kind)
    found = [NoiseConfig(kind, rate, map=name) for name in names]
    named = [noise for noise in found if row["cell"].startswith(f"{noise.slug()}_")]
    return found[0] if len(found) == 1 else named[0] if named else NoiseConfig(kind, rate)


def _usual_width(network: str) -> int | None:
    convnet = network in CONVNET_DEPTHS or network in DOUBLING_DEPTHS
    return CONVNET_WIDTH if convnet else None if network == "vgg11" else RESNET_WIDTH


def _change(kind: str, name: str, ours: Any, recipe: Any) -> Iterator[Change]:
    """Yield a change where a value is given and another than the recipe's."""
    if ours is not None and ours != recipe:
        yield Change(kind, name, _text(ours), _text(recipe))


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data(sweep: SweepFile) -> Iterator[Change]:
    yield from _change("data", "data.subset", sweep.data.subset, "all")
    yield from _change("data", "data.test_subset", sweep.data.test_subset, "all")
    yield from _change("data", "data.labels", sweep.data.labels, "none")
    yield from _change("data", "data.size", sweep.data.size, "none")


def _budget(sweep: SweepFile, composition: Composition, recipe: Recipe) -> Iterator[Change]:
    budget = sweep.budget
    if composition.base == "full":
        epochs = sweep.evaluate.full.epochs or budget.full_epochs
        yield from _change("budget", "budget.full_epochs", epochs, recipe.evaluation.epochs)
        return
    epochs = sweep.evaluate.epochs or budget.eval_epochs
    yield from _change("budget", "budget.eval_epochs", epochs, recipe.evaluation.epochs)
    if recipe.experts is not None:
        yield from _change("budget", "budget.experts", budget.experts, recipe.num_experts)
        yield from _change("budget", "budget.expert_epochs", budget.expert_epochs, recipe.experts.epochs)


def _parameters(
    sweep: SweepFile, composition: Composition, recipe: Recipe, noise: NoiseConfig, row: Mapping[str, Any]
) -> Iterator[Change]:
    """Yield the hyper-parameters of the method and its parts that are searched, or not the recipe's."""
    published = dict(recipe.params)
    for part in composition.configs:
        published |= part_settings(part, composition.base, sweep.data.name, noise)
    ours, theirs = composition.settings(json.loads(row["params"] or "{}")), composition.settings(published)
    searched = composition.own(sweep.search.space)
    for name in composition.types:
        full_name = name if "." in name else f"{composition.base}.{name}"
        kind = "budget" if name == "iterations" else "settings"
        value = "searched" if name in searched else ours.value(name)
        yield from _change(kind, full_name, value, theirs.value(name))


def _training(sweep: SweepFile, composition: Composition, recipe: Recipe) -> Iterator[Change]:
    """Yield how experts and evaluation networks are trained otherwise."""
    full = composition.base == "full"
    section = sweep.evaluate.full if full else sweep.evaluate
    for name in _TRAINING:
        prefix = "evaluate.full" if full else "evaluate"
        yield from _change("settings", f"{prefix}.{name}", getattr(section, name), getattr(recipe.evaluation, name))
    for name in _EXPERTS if recipe.experts is not None else ():
        yield from _change("settings", f"experts.{name}", getattr(sweep.experts, name), getattr(recipe.experts, name))


def _cleaner(sweep: SweepFile, name: str, noise: NoiseConfig) -> Iterator[Change]:
    """Yield how a cleaner trains otherwise, and the extractor that it has."""
    section, usual = sweep.cleaner, cleaner_recipe(name, sweep.data.name, noise)
    yield from _change("settings", "cleaner.network", section.network, usual.network.name)
    yield from _change("settings", "cleaner.width", section.width, usual.network.width or "the usual")
    if usual.extractor is not None:
        yield from _extractor(sweep)


def _extractor(sweep: SweepFile) -> Iterator[Change]:
    """Yield how an extractor is trained otherwise."""
    section, usual = sweep.extractor, extractor_of(sweep.data.name)
    yield from _change("budget", "extractor.epochs", section.epochs, usual.epochs)
    yield from _change("settings", "extractor.network", section.network, usual.network.name)
    yield from _change("settings", "extractor.width", section.width, usual.network.width or "the usual")
    for name in ("batch_size", "lr"):
        yield from _change("settings", f"extractor.{name}", getattr(section, name), getattr(usual, name))
