"""Linear regression with Gaussian errors and censored responses, by maximum likelihood (Tobin, 1958).

In the parameters ``gamma = beta / sigma`` and ``theta = 1 / sigma`` the log-likelihood is concave (Olsen, 1978), so
Newton's method with step halving finds its only maximum:
``log theta - (theta y - x gamma)^2 / 2`` for a measured y, ``log Phi(theta c - x gamma)`` for a response known to be
at most c, and ``log Phi(x gamma - theta c)`` for one above c.

A coefficient is tested by its likelihood ratio. With measured responses alone, ``LR = k log(1 + t^2 / (k - p))`` for k
responses and p coefficients, with t the statistic of Student's test; solving for t makes test and interval exact
there. With censored ones, k counts the measured responses only, which errs on the wide side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from analysis.fits.resample import Array, Estimate

_LOG_ROOT = 0.5 * math.log(2 * math.pi)
_MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class Regression:
    """A maximum of the likelihood.

    Attributes:
        beta: Coefficients, [p].
        sigma: Standard deviation of the errors; 0 if the line passes through every measured response.
        log_likelihood: At the maximum; inf if ``sigma`` is 0.
    """

    beta: Array
    sigma: float
    log_likelihood: float


@dataclass(frozen=True, slots=True)
class Responses:
    """Responses of a regression.

    Attributes:
        design: [N, p], of full rank on the measured rows.
        y: [N]; the bound where a response is censored.
        side: [N]; 0 measured, -1 at most y, 1 above y.
    """

    design: Array
    y: Array
    side: NDArray[np.int64]

    @property
    def num_measured(self) -> int:
        """How many responses are not censored."""
        return int((self.side == 0).sum())

    def without(self, column: int, coefficient: float) -> Responses:
        """Return the regression in which the coefficient of one column is held at a value."""
        rest = np.delete(self.design, column, axis=1)
        return Responses(rest, self.y - coefficient * self.design[:, column], self.side)


def maximise(data: Responses) -> Regression:
    """Return the maximum of the likelihood.

    Needs more measured responses than coefficients. If these lie exactly on a line that no censored response
    contradicts, that line is returned with ``sigma`` 0.
    """
    measured = data.side == 0
    start, *_ = np.linalg.lstsq(data.design[measured], data.y[measured], rcond=None)
    residual = data.y - data.design @ start
    # What a censored response adds is how far the line lies on its wrong side.
    off = np.where(measured, residual, np.maximum(residual * data.side, 0.0))
    unit = math.sqrt(float((off**2).mean()))
    if unit <= 1e-9 * max(1.0, float(np.abs(data.y).max())):
        return Regression(start, 0.0, math.inf)
    # In units of these deviations the parameters are near (0, 1), and the Hessian is well conditioned.
    scaled = Responses(data.design, residual / unit, data.side)
    parameters = np.append(np.zeros(len(start)), 1.0)
    value, gradient, hessian = _likelihood(scaled, parameters)
    for _ in range(_MAX_STEPS):
        step: Array = -np.linalg.solve(hessian, gradient).astype(np.float64)
        if float(gradient @ step) < 1e-12:
            break
        parameters, value, gradient, hessian = _ascend(scaled, parameters, step, value, gradient)
    sigma = unit / float(parameters[-1])
    return Regression(start + sigma * parameters[:-1], sigma, value - data.num_measured * math.log(unit))


def coefficient_p_value(data: Responses, fit: Regression, column: int, value: float) -> float:
    """Return the two-sided p-value of the hypothesis that a coefficient has a value."""
    freedom = data.num_measured - data.design.shape[1]
    if fit.sigma == 0:
        return 1.0 if math.isclose(float(fit.beta[column]), value, rel_tol=1e-6, abs_tol=1e-9) else 0.0
    ratio = max(0.0, 2 * (fit.log_likelihood - maximise(data.without(column, value)).log_likelihood))
    return float(2 * stats.t.sf(math.sqrt(freedom * math.expm1(ratio / data.num_measured)), freedom))


def coefficient(data: Responses, fit: Regression, column: int, confidence: float) -> Estimate:
    """Return a coefficient with its profile-likelihood interval.

    An end is infinite where the likelihood never falls far enough.
    """
    best = float(fit.beta[column])
    if fit.sigma == 0:
        return Estimate(best, best, best)
    freedom = data.num_measured - data.design.shape[1]
    quantile = float(stats.t.ppf((1 + confidence) / 2, freedom))
    allowed = data.num_measured * math.log1p(quantile**2 / freedom) / 2

    def excess(value: float) -> float:
        return fit.log_likelihood - maximise(data.without(column, value)).log_likelihood - allowed

    scale = fit.sigma / max(float(data.design[data.side == 0, column].std()), 0.1)
    return Estimate(best, _end(excess, best, -scale), _end(excess, best, scale))


def _end(excess: Callable[[float], float], best: float, step: float) -> float:
    """Return where ``excess`` rises through zero on one side of ``best``."""
    inner = best
    for _ in range(40):
        outer = best + step
        if excess(outer) > 0:
            return float(optimize.brentq(excess, *sorted((inner, outer)), xtol=1e-9))
        inner, step = outer, 2 * step
    return math.copysign(math.inf, step)


def _likelihood(data: Responses, parameters: Array) -> tuple[float, Array, Array]:
    """Return the log-likelihood, its gradient and its Hessian in (gamma, theta)."""
    theta = float(parameters[-1])
    rows = np.column_stack([-data.design, data.y])
    z = rows @ parameters
    measured = data.side == 0
    sign = np.where(data.side < 0, 1.0, -1.0)
    u = np.where(measured, 0.0, sign * z)
    log_tail = special.log_ndtr(u)
    mills = np.exp(-0.5 * u**2 - _LOG_ROOT - log_tail)
    value = np.where(measured, math.log(theta) - 0.5 * z**2 - _LOG_ROOT, log_tail).sum()
    slope = np.where(measured, -z, sign * mills)
    curvature = np.where(measured, -1.0, -mills * (mills + u))
    gradient, hessian = rows.T @ slope, (rows.T * curvature) @ rows
    gradient[-1] += measured.sum() / theta
    hessian[-1, -1] -= measured.sum() / theta**2
    return float(value), gradient, hessian


def _ascend(
    data: Responses, parameters: Array, step: Array, value: float, gradient: Array
) -> tuple[Array, float, Array, Array]:
    """Return the parameters after a Newton step, halved until the likelihood rises enough, and the new derivatives."""
    size = 1.0
    while size > 1e-10:
        moved = parameters + size * step
        if moved[-1] > 0:
            new, new_gradient, hessian = _likelihood(data, moved)
            if new >= value + 1e-4 * size * float(gradient @ step) or size * float(gradient @ step) < 1e-13:
                return moved, new, new_gradient, hessian
        size /= 2
    return parameters, value, np.zeros_like(gradient), -np.eye(len(parameters))
