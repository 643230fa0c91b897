"""From a sweep file to cells: every combination resolved, checked and named before any compute is spent."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddnl_ray.data import Dataset, PrepareConfig, PreparedData, Whitening, load, prepare
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe
from ddnl_ray.features import SimclrConfig
from ddnl_ray.files import digest
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise
from ddnl_ray.recipes import RECIPES, Recipe, extractor_of, part_settings
from ddnl_ray.robust import Composition, Preparation, compose, prepared_from
from ddnl_ray.sweep.checks import check_parameter_names, check_selection, check_values, corners, ends
from ddnl_ray.sweep.schema import NoiseSection, SpaceSection, SweepFile
from ddnl_ray.trial import TrialConfig
from ddnl_ray.trial.prepare import preparation_of


@dataclass(frozen=True)
class Cell:
    """One combination of the grid, with its study.

    Attributes:
        name: Readable, and unique to all that determines the cell's results.
        config: The trial at the recipe's own values; a study changes its ``params``.
        space: Searched parameters of the cell's method, by name.
        trials: How many trials the study has.
        zca: Which prepared data the cell uses.
        source: Where the recipe's numbers come from.
    """

    name: str
    config: TrialConfig
    space: Mapping[str, SpaceSection]
    trials: int
    zca: Whitening
    source: str

    @property
    def labels_key(self) -> tuple[NoiseConfig, int]:
        """Which noisy labels the cell uses."""
        return self.config.noise, self.config.noise_seed

    @property
    def highest(self) -> dict[str, int]:
        """The largest values in the study of the searched parameters that say how far experts are read."""
        reach = ("max_start_epoch", "expert_epochs")
        return {name: int(_highest(space)) for name, space in self.space.items() if name in reach}

    @property
    def last_epoch(self) -> int:
        """The last expert epoch that matching can read in any trial of the study."""
        settings = compose(self.config.method).settings({**self.config.params, **self.highest})
        return int(settings.base.last_epoch)

    @property
    def prepares_itself(self) -> bool:
        """Whether each trial makes its own experts, because the study searches what they depend on."""
        return any(prepared_from(self.config.method, name) for name in self.space)


@dataclass(frozen=True)
class Plan:
    """A sweep, ready to run.

    Attributes:
        sweep: The file.
        cells: In the order of the grid.
        data: Prepared data by whether, and how, they are whitened.
        labels: Noisy labels by noise and seed of the draw.
    """

    sweep: SweepFile
    cells: tuple[Cell, ...]
    data: Mapping[Whitening, PreparedData]
    labels: Mapping[tuple[NoiseConfig, int], NoisyLabels]

    @property
    def num_trials(self) -> int:
        """Trials of all studies together."""
        return sum(cell.trials for cell in self.cells)

    def preparation(self, cell: Cell) -> Preparation | None:
        """Return what is made before a cell's trials; None: nothing."""
        return preparation_of(cell.config, self.data[cell.zca], self.labels[cell.labels_key])


def make_plan(sweep: SweepFile) -> Plan:
    """Resolve and check every cell of a sweep.

    Raises:
        RequestError: A key, a value or a combination is wrong, or the data are missing; no compute is spent before.
    """
    check_parameter_names(sweep)
    section = sweep.data
    noises = [noise for entry in sweep.grid.noise for noise in _noises(entry)]
    dataset = load(section.name, _path(section.root), _path(section.labels), section.size, section.download)
    check_selection(sweep, dataset)
    labels = _draw_labels(sweep, dataset, noises)
    data: dict[Whitening, PreparedData] = {}
    cells: dict[str, Cell] = {}
    for noise, method, ipc, noise_seed, seed, axes in _combinations(sweep, noises):
        composition = compose(method)
        recipe = RECIPES[composition.base](dataset.name, ipc or 0, noise)
        zca = recipe.zca if section.zca is None else section.zca
        if zca not in data:
            data[zca] = prepare(dataset, _prepare_config(sweep, zca))
        config = _trial_config(sweep, recipe, composition, noise, data[zca])
        config = dataclasses.replace(config, method=method, ipc=ipc, noise_seed=noise_seed, seed=seed)
        config = dataclasses.replace(config, params={**config.params, **composition.own(axes)})
        check_values(sweep, config)
        config = _with_anchors(sweep, config, dataset.name)
        cell = _cell(sweep, config, zca, recipe.source, composition.own(axes))
        cells.setdefault(cell.name, cell)
        _check_cell(cell, data[zca], labels[cell.labels_key])
    return Plan(sweep, tuple(cells.values()), data, labels)


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text is not None else None


def _noises(entry: NoiseSection) -> Iterator[NoiseConfig]:
    """Yield the noise settings of one entry; a rate of 0 is no noise, whatever the kind."""
    rates = entry.rate if isinstance(entry.rate, list) else [entry.rate]
    sets = entry.labels if isinstance(entry.labels, list) else [entry.labels]
    for rate, labels in itertools.product(rates, sets):
        config = NoiseConfig(kind=entry.kind, rate=rate, map=entry.map, labels=labels, file=entry.file)
        yield NoiseConfig() if rate == 0 else config


def _draw_labels(
    sweep: SweepFile, dataset: Dataset, noises: list[NoiseConfig]
) -> dict[tuple[NoiseConfig, int], NoisyLabels]:
    return {
        (noise, seed): apply_noise(
            noise,
            dataset.train_labels,
            dataset=dataset.name,
            num_classes=dataset.num_classes,
            seed=seed,
            root=_path(sweep.data.root),
            clean=dataset.clean_labels,
        )
        for noise in noises
        for seed in sweep.grid.noise_seed
    }


Combination = tuple[NoiseConfig, str, int | None, int, int, dict[str, Any]]


def _combinations(sweep: SweepFile, noises: list[NoiseConfig]) -> Iterator[Combination]:
    """Yield (noise, method, ipc, noise_seed, seed, dotted axes); ``full`` has no ipc and runs once per noise draw."""
    grid = sweep.grid
    names = list(grid.parameters)
    for noise, method, noise_seed in itertools.product(noises, grid.method, grid.noise_seed):
        if method == "full":
            yield noise, method, None, noise_seed, grid.seed[0], {}
            continue
        for ipc, seed, *values in itertools.product(grid.ipc, grid.seed, *grid.parameters.values()):
            yield noise, method, ipc, noise_seed, seed, dict(zip(names, values, strict=True))


def _prepare_config(sweep: SweepFile, zca: Whitening) -> PrepareConfig:
    data = sweep.data
    return PrepareConfig(
        subset=data.subset,
        test_subset=data.test_subset,
        val_fraction=data.val_fraction,
        zca=zca,
        split_seed=data.split_seed,
    )


def _given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _trial_config(
    sweep: SweepFile, recipe: Recipe, composition: Composition, noise: NoiseConfig, data: PreparedData
) -> TrialConfig:
    """Lay the sweep's changes over a recipe."""
    budget, model = sweep.budget, sweep.model
    network = recipe.network
    if model.name is not None or model.width is not None:
        network = NetworkSpec(model.name or network.name, model.width if model.width is not None else network.width)
    full = composition.base == "full"
    training = sweep.evaluate.full if full else sweep.evaluate
    epochs = training.epochs
    if epochs is None:
        epochs = budget.full_epochs if full else budget.eval_epochs
    changes = _given(**{name: getattr(training, name) for name in type(sweep.evaluate.full).model_fields})
    changes.pop("repeats")
    evaluation = dataclasses.replace(recipe.evaluation, **(changes | _given(epochs=epochs)))
    if full and training.checkpoints is None:
        evaluation = dataclasses.replace(evaluation, checkpoints=evaluation.epochs)
    params = dict(recipe.params)
    for part in composition.configs:
        params |= part_settings(part, composition.base, data.name, noise)
    if "iterations" in params and budget.iterations is not None:
        params["iterations"] = budget.iterations
    params |= composition.own(sweep.params)
    experts = recipe.experts
    if experts is not None:
        own = _given(**{name: getattr(sweep.experts, name) for name in type(sweep.experts).model_fields})
        own = {name: value for name, value in own.items() if name not in ("seed", "dtype", "at_once")}
        experts = _experts(experts, network, own | _given(epochs=budget.expert_epochs))
    names = sweep.evaluate.networks or [network.name]
    return TrialConfig(
        data=data.fingerprint,
        dataset=data.name,
        noise=noise,
        method=composition.base,
        params=params,
        ipc=None,
        network=network,
        augment=recipe.augment,
        experts=experts,
        num_experts=(budget.experts or recipe.num_experts) if experts is not None else 0,
        expert_seed=sweep.experts.seed,
        expert_dtype=sweep.experts.dtype,
        evaluation=evaluation,
        eval_networks=tuple(network if name == network.name else NetworkSpec(name) for name in names),
        repeats=training.repeats,
        select_on=sweep.search.select_on,
        eval_every=0 if full else budget.eval_every,
    )


def _experts(recipe: ExpertRecipe, network: NetworkSpec, changes: dict[str, Any]) -> ExpertRecipe:
    """Lay changes over a recipe of experts; a schedule is as much longer than the training as it was, unless said."""
    if recipe.schedule_epochs is not None and "epochs" in changes:
        rest = recipe.schedule_epochs - recipe.epochs
        changes = {"schedule_epochs": changes["epochs"] + rest} | changes
    return dataclasses.replace(recipe, network=network, **changes)


def _with_anchors(sweep: SweepFile, config: TrialConfig, dataset: str) -> TrialConfig:
    """Give a configuration with TAD its extractor, and the base's setting at as many images as there are anchors.

    So the anchors, and with them the experts, are the same for every IPC.
    """
    composition = compose(config.method)
    if "tad" not in composition.parts:
        return config
    tad = composition.settings(config.params).parts["tad"]
    if not tad.inner:
        return config
    params = dict(RECIPES[composition.base](dataset, tad.anchors_per_class, config.noise).params)
    own = composition.own(sweep.params)
    params |= {name: value for name, value in own.items() if "." not in name}
    extractor = _extractor(sweep, dataset) if tad.features == "simclr" else None
    return dataclasses.replace(config, anchor_params=params, extractor=extractor)


def _extractor(sweep: SweepFile, dataset: str) -> SimclrConfig:
    """Lay the sweep's changes over the data set's extractor."""
    section, config = sweep.extractor, extractor_of(dataset)
    network = config.network
    if section.network is not None or section.width is not None:
        same = section.network in (None, network.name)
        network = NetworkSpec(section.network or network.name, section.width or (network.width if same else None))
    changes = _given(epochs=section.epochs, batch_size=section.batch_size, lr=section.lr)
    return dataclasses.replace(config, network=network, **changes)


def _cell(sweep: SweepFile, config: TrialConfig, zca: Whitening, source: str, axes: dict[str, Any]) -> Cell:
    """Name a cell and give it its study."""
    space = compose(config.method).own(sweep.search.space)
    search = sweep.search if space else sweep.search.model_copy(update={"trials": 1})
    identity = {
        "config": config.identity,
        "space": {name: item.model_dump() for name, item in space.items()},
        "search": [search.sampler, search.parallel] if space else None,
        "stopper": sweep.stopper.model_dump() if sweep.stopper and space else None,
    }
    parts = [
        config.noise.slug(),
        config.method,
        *([f"ipc{config.ipc}"] if config.ipc is not None else []),
        *(f"{name}={value}" for name, value in axes.items()),
        f"n{config.noise_seed}",
        f"s{config.seed}",
    ]
    slug = re.sub(r"[^A-Za-z0-9.=_-]", "-", "_".join(parts))
    return Cell(f"{slug}-{digest(identity)[:8]}", config, space, search.trials, zca, source)


def _check_cell(cell: Cell, data: PreparedData, labels: NoisyLabels) -> None:
    """Check what only the resolved cell shows.

    Raises:
        RequestError: A parameter, the network, the experts or the ipc does not fit.
    """
    config = cell.config
    composition = compose(config.method)
    try:
        composition.settings(config.params)
    except RequestError as error:
        raise RequestError(f"{config.method} in cell {cell.name}: {error}") from error
    for corner in corners(cell.space):
        try:
            composition.settings({**config.params, **corner})
        except RequestError as error:
            raise RequestError(f"search.space of {config.method} holds {corner}, but {error}") from error
    if cell.zca and composition.kind.method.keeps_pixels:
        raise RequestError(
            f"{config.method} keeps pixels, which are not whitened, but data.zca is true; set it to false"
        )
    for network in (config.network, *config.eval_networks):
        network.require_fits(data.input_shape)
    if config.experts is not None and cell.last_epoch > config.experts.epochs:
        raise RequestError(
            f"{config.method} reads experts up to epoch {cell.last_epoch} (max_start_epoch - 1 + expert_epochs), but "
            f"they train for {config.experts.epochs}; raise budget.expert_epochs or lower "
            f"params.{composition.base}.max_start_epoch"
        )
    if config.ipc is None:
        return
    if config.ipc < 1:
        raise RequestError(f"grid.ipc must be at least 1, but got {config.ipc}")
    counts = torch.bincount(labels.labels[data.train_index], minlength=data.num_classes)
    smallest = int(counts.argmin())
    if config.ipc > int(counts[smallest]):
        raise RequestError(
            f"grid.ipc: {config.ipc} is larger than class {data.classes[smallest]!r}, which has "
            f"{int(counts[smallest])} training images under {config.noise.slug()} (noise_seed {config.noise_seed}); "
            "use an ipc of at most that"
        )


def _highest(space: SpaceSection) -> float:
    """Return the largest value of a range of numbers."""
    return max((value for value in ends(space) if isinstance(value, int | float)), default=-math.inf)
