"""alpha of runs whose crossovers are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from analysis.analyze import LawRates
from analysis.facts import Facts, RunFacts
from analysis.fits.crossover import Censored, Crossover
from analysis.fits.rates import leave_one_rate_out
from analysis.noise_rate import calibrate
from analysis.scores import Setting
from ddnl_ray.errors import RequestError

FACTS = Facts({"known": RunFacts({"digits": 1000}, {"digits": 10})})
RATES = (0.0, 0.2, 0.4, 0.6)
Make = Callable[..., LawRates]


@pytest.fixture
def law() -> Make:
    """Crossovers at which an image is worth ten clean ones, times a factor each: IPC* = 10 (1 - rate)."""

    def make(
        factors: Sequence[float] = (1.0, 1.1, 1 / 1.1, 1.0), censored: Censored = "none", method: str = "datm"
    ) -> LawRates:
        setting = Setting("digits", "symmetric", None, None, method, "none", None, "convnet2", "convnet2")
        points = [
            Crossover(10 * (1 - rate) * factor, 1.0, 20.0, censored, 3)
            for rate, factor in zip(RATES, factors, strict=False)
        ]
        return LawRates(setting, leave_one_rate_out(RATES[: len(points)], points, 1000, 10))

    return make


def test_alpha_of_known_crossovers_with_its_error(law: Make) -> None:
    found = calibrate([law()], FACTS, "runs/known", 1100, 10)
    assert found.alpha.value == pytest.approx(10.0)
    assert found.alpha.low < 10 < found.alpha.high
    assert found.num_errors == 4
    assert found.mean_error < 0.07
    assert "4 crossovers of datm under symmetric noise on digits (runs/known)" in found.sentence
    assert re.search(
        r"mean absolute error is [0-9.]+ points over 4 crossovers; guessing .* errs by [0-9.]+\.", found.sentence
    )


def test_the_method_with_the_most_crossovers_calibrates(law: Make) -> None:
    found = calibrate([law((1.0, 1.0, 1.0), method="mtt"), law()], FACTS, "run", 1000, 10)
    assert "of datm" in found.source


def test_an_estimate_no_better_than_a_guess_says_so(law: Make) -> None:
    found = calibrate([law((1.0, 2.0, 6.0, 30.0))], FACTS, "run", 1000, 10)
    assert found.mean_error > found.guess_error
    assert "carries no information" in found.sentence


def test_runs_that_cannot_calibrate_are_refused(law: Make) -> None:
    with pytest.raises(RequestError, match=r"needs measured crossovers at two rates.*the best has 0;.*censored"):
        calibrate([law(censored="right")], FACTS, "run", 1000, 10)
    with pytest.raises(RequestError, match="the best has 0"):
        calibrate([law((1.0,))], FACTS, "run", 1000, 10)
    with pytest.raises(RequestError, match="the best has 0; run more images per class"):
        calibrate([], FACTS, "run", 1000, 10)
    with pytest.raises(RequestError, match="distilled from 1000 training images, but there are 1437 labels"):
        calibrate([law()], FACTS, "run", 1437, 10)
    with pytest.raises(RequestError, match="has 10 classes, but the labels have 2"):
        calibrate([law()], FACTS, "run", 1000, 2)
