"""What a sweep file asks of one trial: a recipe, with the file's changes laid over it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ddnl_ray.data import PreparedData
from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe
from ddnl_ray.features import SimclrConfig
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES, Recipe, cleaner_recipe, extractor_of, part_settings
from ddnl_ray.robust import CleanerTraining, Composition, compose
from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.trial import TrialConfig


def trial_config(
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


def with_anchors(sweep: SweepFile, config: TrialConfig, dataset: str) -> TrialConfig:
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
    extractor = _extractor(sweep, extractor_of(dataset)) if tad.features == "simclr" else None
    return dataclasses.replace(config, anchor_params=params, extractor=extractor)


def with_cleaner(sweep: SweepFile, config: TrialConfig, dataset: str) -> TrialConfig:
    """Give a configuration with a cleaner what that trains, and the extractor that it needs.

    None of it depends on the backbone of distillation, so that all methods and networks share the cleaned labels.

    Raises:
        RequestError: The cleaner is to know true labels, which a sweep does not have.
    """
    composition = compose(config.method)
    name = composition.cleaner
    if name is None:
        return config
    own = composition.settings(config.params).parts[name]
    if getattr(own, "meta", None) == "known":
        raise RequestError(f"{name}.meta is 'known', but a sweep gives no true labels to a cleaner; use divided")
    recipe = cleaner_recipe(name, dataset, config.noise)
    network = _network(recipe.network, sweep.cleaner.network, sweep.cleaner.width)
    extractor = recipe.extractor if getattr(own, "source", "given") == "given" else None
    if extractor is not None:
        extractor = _extractor(sweep, extractor)
        if name == "c2d":
            extractor = dataclasses.replace(extractor, network=network)
    return dataclasses.replace(config, cleaner=CleanerTraining(network, recipe.flip), extractor=extractor)


def _experts(recipe: ExpertRecipe, network: NetworkSpec, changes: dict[str, Any]) -> ExpertRecipe:
    """Lay changes over a recipe of experts; a schedule is as much longer than the training as it was, unless said."""
    if recipe.schedule_epochs is not None and "epochs" in changes:
        rest = recipe.schedule_epochs - recipe.epochs
        changes = {"schedule_epochs": changes["epochs"] + rest} | changes
    return dataclasses.replace(recipe, network=network, **changes)


def _extractor(sweep: SweepFile, config: SimclrConfig) -> SimclrConfig:
    """Lay the sweep's changes over an extractor."""
    section = sweep.extractor
    network = _network(config.network, section.network, section.width)
    changes = _given(epochs=section.epochs, batch_size=section.batch_size, lr=section.lr)
    return dataclasses.replace(config, network=network, **changes)


def _network(recipe: NetworkSpec, name: str | None, width: int | None) -> NetworkSpec:
    """Lay a name and a width over a recipe's network; another network has its usual width unless said."""
    if name is None and width is None:
        return recipe
    return NetworkSpec(name or recipe.name, width or (recipe.width if name in (None, recipe.name) else None))


def _given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
