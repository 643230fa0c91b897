"""Networks whose predictions, latents and gradients are measured: one of clean data, others of distilled sets.

The reference network is trained on the clean labels of the training split for a stated number of epochs, nothing being
chosen by its scores. The networks of distilled sets are those of the run, trained again with the seeds that it used, so
that on the same class of device they are the same networks, and their confusion matrices, which no run stores, those of
its scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

from ddnl_ray.cards.read import read_set
from ddnl_ray.data import PreparedData
from ddnl_ray.distill import Distilled
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.evaluate import EvalRecipe, train
from ddnl_ray.files import read_json, sha256
from ddnl_ray.models import Flat, NetworkSpec
from ddnl_ray.models.parts import outputs_of
from ddnl_ray.seeds import SeedTree

PART = 1024
GRADIENT_PART = 64
"""Samples whose gradients are held at once: each has as many numbers as the network has weights."""


@dataclass(frozen=True)
class Judged:
    """What a network makes of S samples, on the CPU.

    Attributes:
        probabilities: Class probabilities [S, C], float64.
        latents: Inputs of the last layer [S, d], float64.
    """

    probabilities: Tensor
    latents: Tensor


@dataclass(frozen=True)
class Retrained:
    """A network of a distilled set.

    Attributes:
        accuracy: On the test set.
        confusion: Counts of the test set by true class (rows) and prediction, int64 [C, C].
        gap: Its accuracy on the images that it was trained on (soft labels by their largest class) less that.
        images: How many images the set has.
        latents: Inputs of its last layer on the samples asked for [S, d], float64.
    """

    accuracy: float
    confusion: Tensor
    gap: float
    images: int
    latents: Tensor


def train_reference(
    data: PreparedData, recipe: EvalRecipe, network: NetworkSpec, device: torch.device | str, seed: SeedTree
) -> nn.Module:
    """Train a network on the clean labels of the training split.

    Args:
        data: Prepared data.
        recipe: How to train; with a learning rate.
        network: What to train.
        device: Where.
        seed: Determines initialisation, order and augmentation.

    Raises:
        RequestError: Nobody knows the clean labels.
    """
    if data.clean_labels is None:
        raise RequestError(
            f"nobody knows the clean labels of {data.name}, so there is no reference network and nothing to measure; "
            "give true labels with a clean column (data.labels), or pass --i-min, --i-clean and --redundancy"
        )
    labels = data.clean_labels[data.train_index.cpu()].to(device)
    return train(Distilled(data.train_images.to(device), labels), recipe, network, data.num_classes, seed)


@torch.no_grad()
def judge(model: nn.Module, images: Tensor) -> Judged:
    """Return what a network makes of images [S, C, H, W], on its device.

    Raises:
        RequestError: The network has batch normalisation.
    """
    model.eval()
    flat = Flat(model)
    theta = flat.flatten()
    parts = [outputs_of(flat, theta, part) for part in images.split(PART)]
    logits, features = (torch.cat([getattr(part, name) for part in parts]) for name in ("logits", "features"))
    return Judged(logits.double().softmax(1).cpu(), features.double().cpu())


def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the norm of each sample's gradient of the cross-entropy over all weights [S], float64, on the CPU.

    Args:
        model: A network without batch normalisation.
        images: [S, C, H, W], on its device.
        labels: int64 [S], likewise.
    """
    model.eval()
    flat = Flat(model)
    theta = flat.flatten()

    def loss(weights: Tensor, image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(flat(weights, image[None]), label[None])

    of_each: Any = vmap(grad(loss), in_dims=(None, 0, 0))
    parts = zip(images.split(GRADIENT_PART), labels.split(GRADIENT_PART), strict=True)
    return torch.cat([of_each(theta, x, y).detach().double().norm(dim=1).cpu() for x, y in parts])


def retrain(trial: Path, network: str, repeat: int, data: PreparedData, held: Tensor) -> Retrained:
    """Train a network of a trial again on its distilled set, with the seed that the trial used.

    Args:
        trial: Folder of the trial.
        network: Name of the evaluation network.
        repeat: Which of its repeats.
        data: The data that the trial was scored on, on the device to train on.
        held: Rows of the test images whose latents are returned.

    Raises:
        CorruptFileError: The set is missing or damaged.
        RequestError: It is of other data, or its card has no such network.
    """
    training, card = read_distilled(trial)
    config = card["config"]
    if config["data"] != data.fingerprint:
        raise RequestError(f"{trial.name} was distilled from other data than sweep.yaml names; run the sweep again")
    known = {each["name"]: each for each in config["eval_networks"]}
    if network not in known:
        raise RequestError(f"{trial.name} has no network {network!r} in its card; it has {sorted(known)}")
    device = data.test_images.device
    training = Distilled(training.images.to(device), training.labels.to(device), training.step_size, training.factor)
    seed = SeedTree.root(config["seed"]).child("noise", config["noise_seed"], "evaluate", network, repeat)
    recipe, spec = EvalRecipe(**card["evaluation"]), NetworkSpec(**known[network])
    model = train(training, recipe, spec, data.num_classes, seed)
    shown = training.decoded()
    own = shown.labels.argmax(1) if shown.labels.is_floating_point() else shown.labels
    fitted = float((judge(model, shown.images).probabilities.argmax(1) == own.cpu()).double().mean())
    judged = judge(model, data.test_images)
    classes, labels = data.num_classes, data.test_labels.cpu()
    cells = labels * classes + judged.probabilities.argmax(1)
    confusion = torch.bincount(cells, minlength=classes**2).reshape(classes, classes)
    accuracy = float(confusion.diagonal().sum()) / len(labels)
    return Retrained(accuracy, confusion, fitted - accuracy, len(training.images), judged.latents[held.cpu()])


def read_distilled(trial: Path) -> tuple[Distilled, dict[str, Any]]:
    """Read a distilled set with its card.

    Raises:
        CorruptFileError: A file is missing, or the set is not the one of the card.
    """
    path = trial / "distilled.safetensors"
    if not path.is_file() or not (trial / "card.json").is_file():
        raise CorruptFileError(f"{trial} has no distilled set with a card; run the sweep again")
    card: dict[str, Any] = read_json(trial / "card.json")
    if sha256(path.read_bytes()) != card["images"]["sha256"]:
        raise CorruptFileError(f"{path} is not the set of its card; run the trial again")
    return read_set(trial, card), card
