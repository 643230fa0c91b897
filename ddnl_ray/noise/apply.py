"""From a noise model and a training set's labels to the labels that a distiller is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddnl_ray.errors import RequestError
from ddnl_ray.noise.asymmetric import asymmetric
from ddnl_ray.noise.config import NoiseConfig
from ddnl_ray.noise.labels import NoisyLabels
from ddnl_ray.noise.natural import read_natural
from ddnl_ray.noise.pairflip import pairflip
from ddnl_ray.noise.symmetric import symmetric
from ddnl_ray.noise.transition import read_transition, sample, validate_transition
from ddnl_ray.seeds import SeedTree


def nominal_transition(config: NoiseConfig, *, dataset: str, num_classes: int) -> NDArray[np.float64] | None:
    """Return the matrix that ``config`` draws from on a data set; ``None`` for the kinds none and natural.

    Args:
        config: The noise model.
        dataset: Name of the data set; asymmetric noise has maps for some.
        num_classes: C.

    Returns:
        float64, ``(C, C)``, rows true class.

    Raises:
        RequestError: The noise does not fit the data set.
        DataError: The matrix file is missing or unreadable.
    """
    if config.kind in ("none", "natural"):
        return None
    if num_classes < 2:
        raise RequestError(f"label noise needs at least 2 classes, but the data set has {num_classes}")
    if config.kind == "transition":
        matrix = config.matrix if config.file is None else read_transition(Path(config.file).expanduser())
        return validate_transition(np.asarray(matrix), num_classes)
    assert config.rate is not None
    if config.kind == "asymmetric":
        return asymmetric(config.rate, dataset, config.map)
    return (symmetric if config.kind == "symmetric" else pairflip)(config.rate, num_classes)


def apply_noise(
    config: NoiseConfig,
    labels: Tensor,
    *,
    dataset: str,
    num_classes: int,
    seed: int,
    root: Path | None = None,
    clean: Tensor | None,
) -> NoisyLabels:
    """Return the labels of a whole training set under a noise model.

    The draw has a seed of its own: it depends on ``seed`` and on the noise model (a matrix by its content,
    wherever its file lies), not on the study or on what else is drawn.

    Args:
        config: The noise model.
        labels: The labels as given, int64, ``(N,)``, in file order.
        dataset: Name of the data set.
        num_classes: C.
        seed: Seed of the noise draw.
        root: The data folder, in which human labels are looked for.
        clean: The true labels, same shape; ``None`` where nobody knows them.

    Raises:
        RequestError: The noise does not fit the data set, or noise is to be added to labels whose truth is
            unknown.
        DataError: A label or matrix file is missing, unreadable, or belongs to other images.
    """
    assert labels.dtype == torch.int64
    assert labels.ndim == 1
    assert clean is None or clean.shape == labels.shape
    if config.kind == "none":
        return NoisyLabels(labels.clone(), clean, config, seed, num_classes)
    if config.kind == "natural":
        assert config.labels is not None
        truth = labels if clean is None else clean
        given = read_natural(
            config.labels,
            truth.numpy(),
            dataset=dataset,
            num_classes=num_classes,
            root=root,
            file=None if config.file is None else Path(config.file).expanduser(),
        )
        return NoisyLabels(torch.from_numpy(given), truth, config, seed, num_classes)
    if clean is None:
        raise RequestError(
            f"{config.kind} noise is added to true labels, but those of {dataset} are unknown: labels given "
            "by you are already noisy; use kind: none"
        )
    matrix = nominal_transition(config, dataset=dataset, num_classes=num_classes)
    assert matrix is not None
    rng = SeedTree.root(seed).child("noise", _by_content(config, matrix).slug()).numpy()
    given = sample(clean.numpy(), matrix, rng)
    return NoisyLabels(torch.from_numpy(given), clean, config, seed, num_classes, matrix)


def _by_content(config: NoiseConfig, matrix: NDArray[np.float64]) -> NoiseConfig:
    """Return ``config`` with the matrix in place of the file that it was read from."""
    if config.kind != "transition":
        return config
    return replace(config, file=None, matrix=tuple(tuple(row) for row in matrix.tolist()))
