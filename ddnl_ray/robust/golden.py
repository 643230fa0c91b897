"""The golden set: the samples whose labels are likely right, and those that the network labels anew with confidence.

Part of RDC (Kim and Song, ICCV 2025, Eqs. 5 to 10; authors' code: DISL-Lab/RDC-ICCV2025). The cross-entropy of every
sample against its observed label is accumulated from the end of the warm-up on. A mixture of two Gaussians on the
logarithm of the sums tells the clean samples C from the others U. Those of U for which the network is sure of a class
get that label (R). C and R are the golden set.

Differs from the original:
    - the text leaves the mixture open. It is that of the authors' code, scikit-learn's defaults with seed 42 on
      ln(sum + 1e-8), in float64, but for the number of starts: 1 there, 5 here;
    - unlike in :mod:`ddnl_ray.lnl.mixture` losses are not scaled to [0, 1] and the posterior is not made monotone:
      where the component with the larger mean is the broader one, it also claims the smallest losses;
    - a mixture whose means differ by less than half a pooled standard deviation (the root of the mean variance, by the
      components' shares), or with a component below a share of 0.01, is no split; the caller keeps the one before.
      Losses in a single bell seldom meet this: two broad halves are fitted to them, and about a half is taken;
    - confidence above the threshold is asked for (Eq. 8); the code also takes equality;
    - a sample of U whose confident class is the observed one belongs to R too, as Eq. 8 says.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError

OFFSET = 1e-8
FIXED_SEED = 42
SMALLEST_GAP = 0.5
SMALLEST_SHARE = 0.01


@dataclass(frozen=True)
class Golden:
    """A golden set among N samples.

    Attributes:
        labels: Golden labels in the set, observed ones elsewhere, int64 [N].
        member: Which samples are in the set (C and R), bool [N].
        relabelled: Which of them the network labelled (R), bool [N].
        weight: Confidence in the label: of C the posterior of the clean component, of R 1, elsewhere 0; float32 [N].
    """

    labels: Tensor
    member: Tensor
    relabelled: Tensor
    weight: Tensor


def split(accumulated: Tensor, restarts: int = 5) -> Tensor | None:
    """Return the posterior of the clean component [N], float64, or None where losses are of one kind (Eqs. 5 and 6).

    Args:
        accumulated: Sum over epochs of the loss of every sample against its observed label [N], float64.
        restarts: Initialisations of the mixture, of which the likeliest is taken; the authors' code: 1.

    Returns:
        On the device of ``accumulated``. None: the components agree or one is all but empty (see the module).

    Raises:
        RequestError: A loss is not finite.
    """
    # Imported here because it takes a second.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if not accumulated.isfinite().all():
        raise RequestError("a sample's loss is not finite, so its label cannot be judged; lower the learning rate")
    if len(accumulated) < 2:
        return None
    x = (accumulated.double() + OFFSET).log().cpu().numpy()[:, None]
    model = GaussianMixture(2, n_init=restarts, random_state=FIXED_SEED)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        model.fit(x)
    means, variances = model.means_.ravel(), model.covariances_.ravel()
    pooled = float(model.weights_ @ variances) ** 0.5
    if abs(means[1] - means[0]) < SMALLEST_GAP * pooled or model.weights_.min() < SMALLEST_SHARE:
        return None
    return torch.from_numpy(model.predict_proba(x)[:, means.argmin()].copy()).to(accumulated.device)


def golden_set(posterior: Tensor, observed: Tensor, probabilities: Tensor, confidence: float = 0.95) -> Golden:
    """Return the golden set (Eqs. 7 to 10), made from the observed labels each time.

    Args:
        posterior: Of the clean component [N], float64.
        observed: Observed labels, int64 [N]; not changed.
        probabilities: Softmax of the network on every sample, without augmentation [N, K].
        confidence: What the largest probability of a sample of U must exceed.
    """
    clean = posterior > 0.5
    largest, predicted = probabilities.max(1)
    relabelled = ~clean & (largest > confidence)
    weight = torch.where(clean, posterior.float(), relabelled.float())
    return Golden(torch.where(relabelled, predicted, observed), clean | relabelled, relabelled, weight)


def pools(golden: Golden, observed: Tensor, num_classes: int, minimum: int = 8) -> list[Tensor]:
    """Return the rows of every golden class, int64, ascending; a class with too few has its observed rows.

    Args:
        golden: The golden set.
        observed: Observed labels, int64 [N].
        num_classes: Number of classes, K.
        minimum: Golden samples below which a class falls back; 0: never, and a class may have none.

    Returns:
        K tensors.
    """
    found = []
    for label in range(num_classes):
        own = golden.member & (golden.labels == label)
        rows = own.nonzero().flatten()
        found.append(rows if len(rows) >= minimum else (observed == label).nonzero().flatten())
    return found
