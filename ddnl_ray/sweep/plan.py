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
from ddnl_ray.files import digest
from ddnl_ray.noise import NoiseConfig, NoisyLabels, apply_noise
from ddnl_ray.recipes import RECIPES
from ddnl_ray.robust import Preparation, compose, prepared_from
from ddnl_ray.sweep.checks import check_parameter_names, check_selection, check_values, corners, ends
from ddnl_ray.sweep.resolve import trial_config, with_anchors, with_cleaner
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
    made: dict[str, _Setting] = {}
    smallest: dict[Any, tuple[int, int]] = {}
    for noise, method, ipc, noise_seed, seed, axes in _combinations(sweep, noises):
        key = repr((noise, method, ipc, axes))
        if key not in made:
            made[key] = _setting(sweep, dataset, data, noise, method, ipc, axes)
        cell = _cell(made[key], noise_seed, seed)
        place = made[key].zca, cell.labels_key
        if place not in smallest:
            smallest[place] = _smallest_class(data[cell.zca], labels[cell.labels_key])
        _check_ipc(cell.config, data[cell.zca], *smallest[place])
        cells.setdefault(cell.name, cell)
    return Plan(sweep, tuple(cells.values()), data, labels)


@dataclass(frozen=True)
class _Setting:
    """What the cells share that differ by their seeds alone; checked.

    Attributes:
        config: The trial, with any seeds.
        space: Searched parameters of the method.
        trials: How many trials a study has.
        identity: What names are made of, with any seeds.
        slug: The parts of the name before the seeds.
        zca: Which prepared data.
        source: Where the recipe's numbers come from.
    """

    config: TrialConfig
    space: Mapping[str, SpaceSection]
    trials: int
    identity: dict[str, Any]
    slug: str
    zca: Whitening
    source: str


def _setting(
    sweep: SweepFile,
    dataset: Dataset,
    data: dict[Whitening, PreparedData],
    noise: NoiseConfig,
    method: str,
    ipc: int | None,
    axes: dict[str, Any],
) -> _Setting:
    """Resolve and check one combination but for its seeds; prepare the data where no cell before has used them."""
    composition = compose(method)
    recipe = RECIPES[composition.base](dataset.name, ipc or 0, noise)
    zca = recipe.zca if sweep.data.zca is None else sweep.data.zca
    if zca not in data:
        data[zca] = prepare(dataset, _prepare_config(sweep, zca))
    own = composition.own(axes)
    config = trial_config(sweep, recipe, composition, noise, data[zca])
    config = dataclasses.replace(config, method=method, ipc=ipc, params={**config.params, **own})
    check_values(sweep, config)
    config = with_cleaner(sweep, with_anchors(sweep, config, dataset.name), dataset.name)
    space = composition.own(sweep.search.space)
    parts = [
        noise.slug(),
        method,
        *([f"ipc{ipc}"] if ipc is not None else []),
        *(f"{name}={value}" for name, value in own.items()),
    ]
    setting = _Setting(
        config=config,
        space=space,
        trials=sweep.search.trials if space else 1,
        identity={
            "config": config.identity,
            "space": {name: item.model_dump() for name, item in space.items()},
            "search": [sweep.search.sampler, sweep.search.parallel] if space else None,
            "stopper": sweep.stopper.model_dump() if sweep.stopper and space else None,
        },
        slug="_".join(parts),
        zca=zca,
        source=recipe.source,
    )
    _check_setting(_cell(setting, sweep.grid.noise_seed[0], sweep.grid.seed[0]), data[zca])
    return setting


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
    """Yield (noise, method, ipc, noise_seed, seed, dotted axes).

    ``full`` has no ipc and runs once per noise draw, on cleaned labels once per setting of the cleaner.
    """
    grid = sweep.grid
    for noise, method, noise_seed in itertools.product(noises, grid.method, grid.noise_seed):
        composition, axes, ipcs, seeds = compose(method), grid.parameters, list[int | None](grid.ipc), grid.seed
        if composition.base == "full":
            axes = {name: values for name, values in axes.items() if composition.own({name: values})}
            ipcs, seeds = [None], grid.seed[:1]
        names = list(axes)
        for ipc, seed, *values in itertools.product(ipcs, seeds, *axes.values()):
            yield noise, method, ipc, noise_seed, seed, dict(zip(names, values, strict=True))


def count_cells(sweep: SweepFile) -> int:
    """Return how many cells a sweep has, without its data."""
    noises = [noise for entry in sweep.grid.noise for noise in _noises(entry)]
    return len(
        {
            repr((noise, method, ipc, noise_seed, seed, compose(method).own(axes)))
            for noise, method, ipc, noise_seed, seed, axes in _combinations(sweep, noises)
        }
    )


def _prepare_config(sweep: SweepFile, zca: Whitening) -> PrepareConfig:
    data = sweep.data
    return PrepareConfig(
        subset=data.subset,
        test_subset=data.test_subset,
        val_fraction=data.val_fraction,
        zca=zca,
        split_seed=data.split_seed,
    )


def _cell(setting: _Setting, noise_seed: int, seed: int) -> Cell:
    """Name the cell of a setting with its seeds."""
    own = setting.identity["config"] | {"noise_seed": noise_seed, "seed": seed}
    name = digest(setting.identity | {"config": own})[:8]
    slug = re.sub(r"[^A-Za-z0-9.=_-]", "-", f"{setting.slug}_n{noise_seed}_s{seed}")
    config = dataclasses.replace(setting.config, noise_seed=noise_seed, seed=seed)
    return Cell(f"{slug}-{name}", config, setting.space, setting.trials, setting.zca, setting.source)


def _check_setting(cell: Cell, data: PreparedData) -> None:
    """Check what only the resolved cell shows, whatever its seeds.

    Raises:
        RequestError: A parameter, the network or the experts do not fit.
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
    trained = [config.cleaner.network] if config.cleaner is not None else []
    for network in (config.network, *config.eval_networks, *trained):
        network.require_fits(data.input_shape)
    if config.experts is not None and cell.last_epoch > config.experts.epochs:
        raise RequestError(
            f"{config.method} reads experts up to epoch {cell.last_epoch} (max_start_epoch - 1 + expert_epochs), but "
            f"they train for {config.experts.epochs}; raise budget.expert_epochs or lower "
            f"params.{composition.base}.max_start_epoch"
        )


def _smallest_class(data: PreparedData, labels: NoisyLabels) -> tuple[int, int]:
    """Return the class with the fewest observed training images, and how many it has."""
    counts = torch.bincount(labels.labels[data.train_index], minlength=data.num_classes)
    smallest = int(counts.argmin())
    return smallest, int(counts[smallest])


def _check_ipc(config: TrialConfig, data: PreparedData, smallest: int, count: int) -> None:
    """Check that every class has as many images as are distilled; of cleaned labels that is known when they are made.

    Raises:
        RequestError: The ipc does not fit.
    """
    if config.ipc is None:
        return
    if config.ipc < 1:
        raise RequestError(f"grid.ipc must be at least 1, but got {config.ipc}")
    if config.ipc > count and compose(config.method).cleaner is None:
        raise RequestError(
            f"grid.ipc: {config.ipc} is larger than class {data.classes[smallest]!r}, which has "
            f"{count} training images under {config.noise.slug()} (noise_seed {config.noise_seed}); "
            "use an ipc of at most that"
        )


def _highest(space: SpaceSection) -> float:
    """Return the largest value of a range of numbers."""
    return max((value for value in ends(space) if isinstance(value, int | float)), default=-math.inf)
