"""Which labels to trust, by their losses: a mixture of two Gaussians and a threshold for every class.

The outer loop of TAD (Wu et al. 2025, arXiv 2502.05027, Eqs. 4 and 5). The samples that are learnt easily form the
component with the smaller mean; the posterior probability of that component is the confidence in a label.

Differs from the original (what it leaves open):
    - the mixture is fitted as in DivideMix (Li et al., ICLR 2020), which the paper cites: losses scaled to [0, 1], at
      most 100 EM steps, tolerance 1e-2, 5e-4 added to each variance. The initialisation (k-means) has a fixed seed. No
      option: EM stops by its tolerance long before the limit;
    - where the variances differ the posterior is not monotone in the loss. It is 1 below the smaller mean, and past
      the loss where it would rise again it stays as it is there;
    - where the means differ by less than 1e-3 of the range there is one component, and every sample is trusted;
    - a sample at its threshold is trusted, and a class keeps at least its ``minimum`` samples of smallest loss.

:func:`lower_component` is DivideMix's own: the fit may stop earlier, and the posterior is left as it is.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ddnl_ray.errors import RequestError, require_known

MAX_STEPS = 100
TOLERANCE = 1e-2
ADDED_VARIANCE = 5e-4
SMALLEST_GAP = 1e-3
SLACK = 1e-12
RULES = ("class_mean", "global_mean", "fixed")
FIXED_THRESHOLD = 0.5


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians on scaled losses, the one with the smaller mean first.

    Attributes:
        shares: Their mixing coefficients.
        means: Their means.
        variances: Their variances.
    """

    shares: tuple[float, float]
    means: tuple[float, float]
    variances: tuple[float, float]

    def posterior(self, losses: Tensor) -> Tensor:
        """Return the probability of the first component [N], float64, made monotone (see the module).

        Args:
            losses: Scaled losses [N], float64.
        """
        (low, high), (var_low, var_high) = self.means, self.variances
        x = losses
        if var_low > var_high:
            x = losses.clamp(max=(high * var_low - low * var_high) / (var_low - var_high))
        return torch.where(losses < low, 1.0, self.raw_posterior(x))

    def raw_posterior(self, losses: Tensor) -> Tensor:
        """Return the probability of the first component [N], float64, as Bayes' rule gives it.

        Args:
            losses: Scaled losses [N], float64.
        """
        (low, high), (var_low, var_high) = self.means, self.variances
        prior = math.log(self.shares[0] / self.shares[1]) + 0.5 * math.log(var_high / var_low)
        odds = prior + (losses - high).square() / (2 * var_high) - (losses - low).square() / (2 * var_low)
        return odds.sigmoid()


def scale_losses(losses: Tensor) -> Tensor:
    """Return losses [N] moved and scaled to [0, 1], float64; equal ones become 0.

    Raises:
        RequestError: A loss is not finite.
    """
    if not losses.isfinite().all():
        raise RequestError("a sample's loss is not finite, so its label cannot be judged; lower experts.lr")
    values = losses.double()
    spread = values.max() - values.min()
    return (values - values.min()) / (spread if spread > 0 else 1.0)


def fit_mixture(losses: Tensor, max_steps: int = MAX_STEPS) -> Mixture:
    """Fit two Gaussians to scaled losses by expectation maximisation.

    Args:
        losses: Scaled losses [N], of two values at least.
        max_steps: The most steps.
    """
    # Imported here because it takes a second.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(2, max_iter=max_steps, tol=TOLERANCE, reg_covar=ADDED_VARIANCE, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        model.fit(losses.double().cpu().numpy()[:, None])
    first, second = model.means_.ravel().argsort().tolist()

    def pair(values: list[float]) -> tuple[float, float]:
        return values[first], values[second]

    return Mixture(
        pair(model.weights_.tolist()), pair(model.means_.ravel().tolist()), pair(model.covariances_.ravel().tolist())
    )


def clean_posterior(losses: Tensor) -> Tensor:
    """Return the confidence in every label [N], float64 in [0, 1], non-increasing in the loss (Eq. 4).

    Args:
        losses: Loss of every sample against its observed label [N].

    Raises:
        RequestError: A loss is not finite.
    """
    scaled = scale_losses(losses)
    if not scaled.max() > 0:
        return torch.ones_like(scaled)
    mixture = fit_mixture(scaled)
    if mixture.means[1] - mixture.means[0] < SMALLEST_GAP:
        return torch.ones_like(scaled)
    return mixture.posterior(scaled)


def lower_component(losses: Tensor, max_steps: int) -> Tensor:
    """Return the posterior of the component with the smaller mean [N], float64, as DivideMix takes it.

    Args:
        losses: Scaled losses [N]; they are not scaled again.
        max_steps: The most steps of the fit.

    Returns:
        1 everywhere where the losses are of one kind (see the module).
    """
    values = losses.double()
    if len(values) < 2 or not values.max() > values.min():
        return torch.ones_like(values)
    mixture = fit_mixture(values, max_steps)
    if mixture.means[1] - mixture.means[0] < SMALLEST_GAP:
        return torch.ones_like(values)
    return mixture.raw_posterior(values)


def class_thresholds(posterior: Tensor, labels: Tensor, num_classes: int, rule: str = "class_mean") -> Tensor:
    """Return the confidence from which on a label of each class is trusted [C], float64.

    Args:
        posterior: Confidence in every label [N], float64.
        labels: Observed labels, int64 [N].
        num_classes: Number of classes, C.
        rule: ``class_mean`` (Eq. 5: the mean over the samples with that label; without any, over all),
            ``global_mean`` (the mean over all) or ``fixed`` (0.5, as in DivideMix).

    Raises:
        RequestError: The rule is unknown.
    """
    require_known("threshold rule", rule, RULES)
    if rule == "fixed":
        return posterior.new_full((num_classes,), FIXED_THRESHOLD)
    everywhere = posterior.mean()
    if rule == "global_mean":
        return everywhere.repeat(num_classes)
    own = [posterior[labels == label] for label in range(num_classes)]
    return torch.stack([values.mean() if len(values) else everywhere for values in own])


def trusted_mask(posterior: Tensor, thresholds: Tensor, losses: Tensor, labels: Tensor, minimum: int = 20) -> Tensor:
    """Return which samples are trusted, bool [N].

    Args:
        posterior: Confidence in every label [N], float64.
        thresholds: Of every class [C], float64.
        losses: What the confidence was made of [N]; they order samples of equal confidence.
        labels: Observed labels, int64 [N].
        minimum: A class with fewer trusted samples gets as many of its smallest losses, or all that it has.
    """
    trusted = posterior >= thresholds[labels] - SLACK
    counts = torch.bincount(labels[trusted], minlength=len(thresholds))
    for label in (counts < minimum).nonzero().flatten().tolist():
        own = (labels == label).nonzero().flatten()
        trusted[own[losses[own].argsort(stable=True)[:minimum]]] = True
    return trusted
