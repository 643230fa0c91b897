"""Agreement of an image's observed label with what a network says of its neighbours in feature space.

The dynamic score of SGR (Eq. 4): 1 minus the mean Jensen-Shannon divergence between the label of an image and the
predictions for its nearest neighbours.

Differs from the original:
    - the label is one-hot (not stated; the neighbourhood estimate that SGR builds on smooths it by 1e-4 for numerical
      reasons only, which the closed form does not need), and the neighbours give softmax predictions;
    - logarithms have base 2, so that the score spans [0, 1] as stated;
    - neighbours are nearest by the cosine of the input of the linear layer, as there; the image itself is not one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ddnl_ray.errors import RequestError

CHUNK = 2**24
"""Similarities that are held at a time."""


def nearest_neighbours(features: Tensor, k: int, chunk: int = CHUNK) -> Tensor:
    """Return the ``k`` rows with the largest cosine to each row, itself left out, nearest first, int64 [N, k].

    Args:
        features: Vectors [N, d].
        k: How many neighbours.
        chunk: How many similarities may be held at a time; at least those of one row are.

    Raises:
        RequestError: There are no ``k`` other rows.
    """
    num = len(features)
    if not 1 <= k < num:
        raise RequestError(f"neighbours must lie in [1, {num - 1}] with {num} images, but got {k}; lower it")
    unit = F.normalize(features, dim=1)
    rows = torch.arange(num, device=features.device)
    found = []
    for own in rows.split(max(1, chunk // num)):
        similarity = unit[own] @ unit.T
        similarity[own - own[0], own] = -math.inf
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found)


def jensen_shannon_onehot(p: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence (base 2) of a one-hot label from a prediction, in [0, 1], of any shape.

    It depends on the probability ``p`` of the label alone: ``log2(2 / (1 + p)) / 2 + p log2(2p / (1 + p)) / 2 +
    (1 - p) / 2``, which is 1 at ``p = 0`` and 0 at ``p = 1``.

    Args:
        p: Probabilities of the label.
    """
    label = torch.log2(2 / (1 + p))
    prediction = torch.xlogy(p, 2 * p / (1 + p)) / math.log(2)
    return ((label + prediction + (1 - p)) / 2).clamp(0, 1)


def neighbour_consistency(features: Tensor, probabilities: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return the agreement of every label with its neighbourhood, W_knn of Eq. 4, in [0, 1], [N].

    Args:
        features: Vectors [N, d].
        probabilities: Predictions [N, classes].
        labels: Observed labels, int64 [N].
        k: How many neighbours.

    Raises:
        RequestError: There are no ``k`` other images.
    """
    p = probabilities[nearest_neighbours(features, k), labels.unsqueeze(1)]
    return 1 - jensen_shannon_onehot(p).mean(1)
