"""Acc-DD with RDC (:mod:`ddnl_ray.robust.rdc`, :mod:`ddnl_ray.distill.accdd`).

The network starts anew every ``cycle`` outer iterations, and with it the sums of losses and the golden set. In between
it learns on: from all images in the first ``warm_up`` outer iterations, then from the golden set, refreshed after each.

Differs from the original (beside those modules):
    - everything is fed to the network as it is trained, normalised; the authors' code leaves that out where it judges
      samples, learns semi-supervised and contrasts;
    - the contrast is on the input of the linear layer (there: on the logits);
    - the weight of the unlabelled part rises with the images that were learnt from, as many to an epoch as there are
      (there it has no effect).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ddnl_ray.distill.accdd import Accdd, AccddConfig, AccddState
from ddnl_ray.distill.base import Choice, Problem
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc import Mined, contrast_gradient, lesson, real_pools, with_mined
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.seeds import SeedTree


@dataclass(frozen=True, kw_only=True)
class RdcAccddConfig(AccddConfig):
    """Hyper-parameters of Acc-DD with RDC."""

    rdc: RdcConfig = field(default_factory=RdcConfig)
    """RDC's own; ``warm_up`` counts outer iterations of a cycle, and an epoch is one of them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        object.__setattr__(self, "rdc", RdcConfig.of(self.rdc))


@dataclass(frozen=True)
class RdcAccddState(AccddState, Mined):
    """Images, the network, and what is known of the training images."""


@dataclass(frozen=True)
class RdcAccdd(Accdd):
    """Acc-DD on a golden set."""

    config: RdcAccddConfig
    name: ClassVar[str] = "accdd+rdc"
    state: ClassVar[type[RdcAccddState]] = RdcAccddState

    def init(self, problem: Problem, seed: SeedTree) -> RdcAccddState:
        """Return the first state (see :meth:`Method.init`)."""
        return with_mined(RdcAccddState, super().init(problem, seed), Mined.nothing(problem))

    def choice(self, state: RdcAccddState) -> Choice:
        """Return the golden set."""
        return state.choice

    def _outer(self, state: RdcAccddState) -> int:
        """Return the outer iteration of the cycle."""
        return state.iteration // self.config.inner_loop % self.config.rdc.cycle

    def _golden(self, state: RdcAccddState) -> Golden | None:
        """Return the golden set once the cycle's warm-up is over."""
        return state.golden if self._outer(state) >= self.config.rdc.warm_up else None

    def _start(self, state: RdcAccddState, problem: Problem, seed: SeedTree) -> RdcAccddState:
        """Return the state with another network at the start of a cycle; else as it is."""
        if self._outer(state):
            return state
        return with_mined(RdcAccddState, super()._start(state, problem, seed), Mined.nothing(problem))

    def _pools(self, state: RdcAccddState, problem: Problem) -> Sequence[Tensor]:
        """Return the rows of observed or of golden classes."""
        return real_pools(self._golden(state), problem, self.config.rdc)

    def _extra(self, state: RdcAccddState, problem: Problem, seed: SeedTree) -> tuple[Tensor, Tensor] | None:
        """Return the contrast."""
        rdc, golden = self.config.rdc, self._golden(state)
        if golden is None or not rdc.contrasts:
            return None
        return contrast_gradient(state.images, problem, state.theta, self._view(problem), golden, rdc, seed)

    def _learn(self, state: RdcAccddState, problem: Problem, seed: SeedTree) -> RdcAccddState:
        """Return the state in which the network has learnt, with a new golden set where an outer iteration ends."""
        config, rdc, golden = self.config, self.config.rdc, self._golden(state)
        if golden is None or rdc.ssl == "none":
            state = super()._learn(state, problem, seed)
        else:
            theta, velocity = state.theta.clone(), state.velocity
            updates = state.iteration % (rdc.cycle * config.inner_loop) - rdc.warm_up * config.inner_loop
            epoch = rdc.warm_up + updates * config.n_data / len(problem.images)
            for turn in range(-(-config.n_data // config.batch_train)):
                found, _ = lesson(problem, theta, golden, epoch, config.batch_train, rdc, seed.child("lesson", turn))
                theta, velocity = config.sgd.step(theta, velocity, found.gradient)
            state = dataclasses.replace(state, theta=theta, velocity=velocity)
        ends = (state.iteration + 1) % config.inner_loop == 0
        if not ends or self._outer(state) + 1 < rdc.warm_up:
            return state
        return with_mined(RdcAccddState, state, state.refreshed(problem, state.theta, rdc))
