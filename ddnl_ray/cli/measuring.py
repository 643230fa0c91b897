"""Measuring a run: from its folder to ``information.json``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from analysis.measure.chosen import Chosen
    from analysis.measure.record import Measurement
    from analysis.measure.values import MethodEvidence
    from ddnl_ray.data import PreparedData
    from ddnl_ray.evaluate import EvalRecipe
    from ddnl_ray.models import NetworkSpec
    from ddnl_ray.sweep.plan import Plan


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """How a run is measured."""

    epochs: int = 30
    """Epochs of the reference network."""
    samples: int = 2000
    """Held-out samples, at most; the test images, or as many of them drawn at random."""
    seed: int = 0
    """Of the training, the samples and the resamples."""
    device: str = "cpu"
    """Where networks are trained."""


def measure_run(run: Path, frame: pd.DataFrame, request: MeasureRequest) -> Measurement:
    """Apply the nine estimators to a run and write ``information.json``; what is there already is kept.

    Args:
        run: The run folder.
        frame: Its result table.
        request: How.

    Raises:
        RequestError: The data are not those of the run, or nobody knows their clean labels.
        CorruptFileError: A file of the run is damaged.
    """
    from analysis.measure.chosen import chosen_networks
    from analysis.measure.record import key_of, read_information, write_information
    from ddnl_ray.errors import RequestError
    from ddnl_ray.sweep.plan import make_plan
    from ddnl_ray.sweep.read import read_sweep

    for name in ("epochs", "samples"):
        if getattr(request, name) < 1:
            raise RequestError(f"--measure-{name} must be at least 1, but got {getattr(request, name)}")
    plan = make_plan(read_sweep(run / "sweep.yaml"))
    recipe, network, zca = _reference(plan, request.epochs)
    data = plan.data[zca]
    chance = float(data.test_labels.bincount().max()) / len(data.test_labels)
    chosen = chosen_networks(frame, chance)
    made_from = {
        "data": data.fingerprint,
        "network": dataclasses.asdict(network),
        "training": recipe.identity,
        "samples": min(request.samples, len(data.test_labels)),
        "seed": request.seed,
        "sets": {name: _identity(run, each) for name, each in chosen.items()},
    }
    there = read_information(run)
    if there is not None and there.key == key_of(made_from):
        return there
    found = _measured(run, plan, data, chosen, made_from, recipe, network, request)
    write_information(run, found)
    return found


def _measured(
    run: Path,
    plan: Plan,
    data: PreparedData,
    chosen: dict[str, Chosen],
    made_from: dict[str, Any],
    recipe: EvalRecipe,
    network: NetworkSpec,
    request: MeasureRequest,
) -> Measurement:
    """Train the networks, and measure them."""
    import numpy as np
    import torch

    from analysis.measure.record import Measurement
    from analysis.measure.values import Evidence, measure
    from ddnl_ray.evaluate import Split, score
    from ddnl_ray.reference import gradient_norms, judge, train_reference
    from ddnl_ray.seeds import SeedTree

    seed = SeedTree.root(request.seed).child("measure")
    order = torch.randperm(len(data.test_labels), generator=seed.child("samples").torch())
    held = order[: request.samples].sort().values
    click.echo(f"training the reference network, {network.name}, for {recipe.epochs} epochs", err=True)
    model = train_reference(data, recipe, network, request.device, seed.child("reference"))
    images, labels = data.test_images.to(request.device), data.test_labels.to(request.device)
    rows = held.to(request.device)
    judged = judge(model, images[rows])
    norms = gradient_norms(model, images[rows], labels[rows])
    methods = {name: _retrained(run, name, each, plan, held, request.device) for name, each in chosen.items()}
    evidence = Evidence(
        probabilities=judged.probabilities.numpy(),
        latents=judged.latents.numpy(),
        labels=data.test_labels[held].numpy(),
        gradient_norms=norms.numpy(),
        parameters=sum(weights.numel() for weights in model.parameters()),
        chance=float(np.bincount(data.test_labels.numpy()).max()) / len(data.test_labels),
        methods=methods,
    )
    reference = {
        "network": network.name,
        "width": network.width,
        "epochs": recipe.epochs,
        "accuracy": score(model, Split(images, labels))[0],
        "samples": len(held),
    }
    size = {"dataset": data.name, "train_images": len(data.train_index), "classes": data.num_classes}
    return Measurement(made_from, size, reference, measure(evidence, seed.child("estimates")))


def _reference(plan: Plan, epochs: int) -> tuple[EvalRecipe, NetworkSpec, bool]:
    """Return training, network and whitening: of the run's own full-data training, with the run's own backbone."""
    from ddnl_ray.recipes import RECIPES

    cells = [cell for cell in plan.cells if cell.config.ipc is not None] or list(plan.cells)
    own, zca = cells[0].config, cells[0].zca
    full = next((cell.config.evaluation for cell in plan.cells if cell.config.method == "full"), None)
    recipe = full or RECIPES["full"](own.dataset, 1, own.noise).evaluation
    return dataclasses.replace(recipe, epochs=epochs, checkpoints=1), own.network, zca


def _identity(run: Path, chosen: Chosen) -> dict[str, Any]:
    """Return what determines the networks of a method: their sets, their seeds and all accuracies."""
    from ddnl_ray.files import sha256

    def content(trial: str) -> str | None:
        path = run / "trials" / trial / "distilled.safetensors"
        return sha256(path.read_bytes()) if path.is_file() else None

    return {
        "noise": chosen.noise,
        "ipc": chosen.ipc,
        "accuracies": {str(ipc): [one.accuracy for one in own] for ipc, own in chosen.by_ipc.items()},
        "networks": [[one.trial, one.network, one.repeat, content(one.trial)] for one in chosen.networks],
    }


def _retrained(run: Path, name: str, chosen: Chosen, plan: Plan, held: torch.Tensor, device: str) -> MethodEvidence:
    """Train the networks of a method again; a set that cannot be read is a sentence."""
    import numpy as np

    from ddnl_ray.errors import CorruptFileError, RequestError
    from ddnl_ray.files import read_json
    from ddnl_ray.reference import retrain

    evidence = chosen.evidence
    if chosen.ipc is None:
        return evidence
    click.echo(f"training {len(chosen.networks)} networks of {name} again, at IPC {chosen.ipc}", err=True)
    found = []
    for one in chosen.networks:
        trial = run / "trials" / one.trial
        try:
            zca = read_json(trial / "card.json")["transform"]["kind"] == "zca" if trial.is_dir() else False
            data = next((each for whitened, each in plan.data.items() if whitened == zca), None)
            if data is None:
                raise RequestError(f"{one.trial} is whitened otherwise than sweep.yaml says; run the sweep again")
            found.append(retrain(trial, one.network, one.repeat, data.to(device), held))
        except (CorruptFileError, RequestError, OSError) as error:
            return dataclasses.replace(evidence, reason=f"A network could not be trained again: {error}")
    return dataclasses.replace(
        evidence,
        retrained=np.array([each.accuracy for each in found]),
        confusions=np.stack([each.confusion.numpy() for each in found]).astype(np.float64),
        gaps=np.array([each.gap for each in found]),
        images=found[0].images,
        latents=found[0].latents.numpy(),
    )
