"""Measures of discrete information: mutual information of a confusion matrix, Fano's bound, InfoNCE.

All in nats.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, logsumexp

from analysis.theory.estimate import Floats


def entropy(probabilities: ArrayLike) -> Floats:
    """Return ``-sum p log p`` over the last axis, with ``0 log 0 = 0``.

    Args:
        probabilities: Distributions, shape [..., C]; not checked.
    """
    return np.asarray(entr(np.asarray(probabilities, dtype=np.float64)).sum(axis=-1), dtype=np.float64)


def mutual_information(counts: ArrayLike, *, is_corrected: bool = True) -> Floats:
    """Return the mutual information I(Y; Ŷ) of contingency tables.

    Plug-in: ``H(Y) + H(Ŷ) - H(Y, Ŷ)`` of the relative frequencies. Miller (1955) and Madow: the plug-in
    entropy of K occupied cells is short of the truth by (K - 1) / 2N to first order, so ``(K_Y + K_Ŷ - K_YŶ -
    1) / 2N`` is added, which is negative for a full table.

    Args:
        counts: Tables of counts, shape [..., C, C'].
        is_corrected: Apply the Miller-Madow correction. The corrected value can lie below 0.

    Returns:
        Shape [...].

    Raises:
        ValueError: A table is no table of counts, or is empty.
    """
    tables = np.asarray(counts, dtype=np.float64)
    if tables.ndim < 2 or not np.isfinite(tables).all() or (tables < 0).any() or (tables != np.rint(tables)).any():
        raise ValueError(
            f"mutual information is of tables of counts but got shape {list(tables.shape)} with a value that is not "
            "a count; pass counts, not rates"
        )
    totals = tables.sum(axis=(-2, -1))
    if (totals == 0).any():
        raise ValueError("mutual information is of tables with samples but one is empty; drop it")
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    cells = tables.reshape(*tables.shape[:-2], -1)
    parts = [entropy(part / totals[..., None]) for part in (rows, columns, cells)]
    plug_in = parts[0] + parts[1] - parts[2]
    if not is_corrected:
        return np.asarray(plug_in)
    occupied = [np.count_nonzero(part, axis=-1) for part in (rows, columns, cells)]
    return np.asarray(plug_in + (occupied[0] + occupied[1] - occupied[2] - 1) / (2 * totals))


def fano(error: float, classes: int, label_entropy: float | None = None) -> float:
    """Return Fano's lower bound ``H(Y) - h(e) - e log(C - 1)`` on the information of a prediction.

    Cover and Thomas (2006), Elements of Information Theory, equation 2.132.

    Args:
        error: Error rate e, in [0, 1].
        classes: Number of classes C, at least 2.
        label_entropy: H(Y); the default is log C, balanced classes.

    Raises:
        ValueError: ``error`` or ``classes`` is out of range.
    """
    if not 0 <= error <= 1:
        raise ValueError(
            f"Fano's bound is of an error rate in [0, 1] but got {error}; pass a fraction, not a percentage"
        )
    if classes < 2:
        raise ValueError(f"Fano's bound is of at least 2 classes but got {classes}; pass the number of classes")
    prior = math.log(classes) if label_entropy is None else label_entropy
    return prior - float(entropy([error, 1 - error])) - error * math.log(classes - 1)


def infonce_terms(scores: ArrayLike) -> Floats:
    """Return the terms whose mean is the InfoNCE bound on the information of a pair.

    Van den Oord, Li and Vinyals (2018), equation 4, as the bound of Poole et al. (2019), equation 10:
    ``log(exp f(x_i, y_i) / (1/B sum_j exp f(x_i, y_j)))``. No term exceeds log B, whatever the information.

    Args:
        scores: The critic f(x_i, y_j), shape [..., B, B]; the pairs that belong together are on the diagonal.
            Off it, -inf is allowed.

    Returns:
        Shape [..., B].

    Raises:
        ValueError: Not square, fewer than two pairs, or a diagonal that is not finite.
    """
    critic = np.asarray(scores, dtype=np.float64)
    if critic.ndim < 2 or critic.shape[-1] != critic.shape[-2] or critic.shape[-1] < 2:
        raise ValueError(
            f"InfoNCE is of square score matrices of at least 2 pairs but got shape {list(critic.shape)}; "
            "score every x of a batch with every y of it"
        )
    own = np.diagonal(critic, axis1=-2, axis2=-1)
    if not np.isfinite(own).all() or np.isnan(critic).any() or np.isposinf(critic).any():
        raise ValueError("InfoNCE is of scores that are finite on the diagonal but one is not; drop that pair")
    return np.asarray(own - logsumexp(critic, axis=-1) + math.log(critic.shape[-1]), dtype=np.float64)
