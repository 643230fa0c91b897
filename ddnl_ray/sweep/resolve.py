"""What a sweep file asks of one trial: a recipe, with the file's changes laid over it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ddnl_ray.data import PreparedData
from ddnl_ray.experts import ExpertRecipe
from ddnl_ray.features import SimclrConfig
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.recipes import RECIPES, Recipe, extractor_of, part_settings
from ddnl_ray.robust import Composition, compose
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
    extractor = _extractor(sweep, dataset) if tad.features == "simclr" else None
    return dataclasses.replace(config, anchor_params=params, extractor=extractor)


def _experts(recipe: ExpertRecipe, network: NetworkSpec, changes: dict[str, Any]) -> ExpertRecipe:
    """Lay changes over a recipe of experts; a schedule is as much longer than the training as it was, unless said."""
    if recipe.schedule_epochs is not None and "epochs" in changes:
        rest = recipe.schedule_epochs - recipe.epochs
        changes = {"schedule_epochs": changes["epochs"] + rest} | changes
    return dataclasses.replace(recipe, network=network, **changes)


def _extractor(sweep: SweepFile, dataset: str) -> SimclrConfig:
    """Lay the sweep's changes over the data set's extractor."""
    section, config = sweep.extractor, extractor_of(dataset)
    network = config.network
    if section.network is not None or section.width is not None:
        same = section.network in (None, network.name)
        network = NetworkSpec(section.network or network.name, section.width or (network.width if same else None))
    changes = _given(epochs=section.epochs, batch_size=section.batch_size, lr=section.lr)
    return dataclasses.replace(config, network=network, **changes)


def _given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
