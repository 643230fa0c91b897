"""IDM with RDC (:mod:`ddnl_ray.robust.rdc`, :mod:`ddnl_ray.distill.idm`).

Differs from the original (beside those modules):
    - an epoch is ``steps_per_epoch`` steps throughout; in the authors' code it is shorter where the golden set is, so
      that the budget depends on the noise;
    - losses and golden set start anew with every run (there they are carried over to the second one);
    - evaluation has a learning rate of its own (there it is that of the network).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ddnl_ray.distill.base import Choice, Problem
from ddnl_ray.distill.idm import Idm, IdmConfig, IdmState
from ddnl_ray.robust.golden import Golden
from ddnl_ray.robust.rdc import Mined, contrast_gradient, lesson, real_pools, with_mined
from ddnl_ray.robust.rdc_config import RdcConfig
from ddnl_ray.seeds import SeedTree

_ONE_NETWORK = {"first_networks": 1, "net_num": 1, "train_net_num": 1, "fetch_net_num": 1, "model_train_steps": 1}


@dataclass(frozen=True, kw_only=True)
class RdcIdmConfig(IdmConfig):
    """Hyper-parameters of IDM with RDC: one network serves the whole run, and learns one step per update."""

    rdc: RdcConfig = field(default_factory=RdcConfig)
    """RDC's own."""

    def __post_init__(self) -> None:
        """Check the ranges, and set what one network means."""
        super().__post_init__()
        object.__setattr__(self, "rdc", RdcConfig.of(self.rdc))
        for name, value in (_ONE_NETWORK | {"meter_reset_interval": 0}).items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class RdcIdmState(IdmState, Mined):
    """Images, the network, and what is known of the training images."""


@dataclass(frozen=True)
class RdcIdm(Idm):
    """Improved distribution matching on a golden set."""

    config: RdcIdmConfig
    name: ClassVar[str] = "idm+rdc"
    state: ClassVar[type[RdcIdmState]] = RdcIdmState

    def init(self, problem: Problem, seed: SeedTree) -> RdcIdmState:
        """Return the first state (see :meth:`Method.init`)."""
        return with_mined(RdcIdmState, super().init(problem, seed), Mined.nothing(problem))

    def choice(self, state: RdcIdmState) -> Choice:
        """Return the golden set."""
        return state.choice

    def _golden(self, state: RdcIdmState) -> Golden | None:
        """Return the golden set once the warm-up is over."""
        return state.golden if state.iteration >= self.config.rdc.warm_up * self.config.rdc.steps_per_epoch else None

    def _renewed(self, state: RdcIdmState, problem: Problem, seed: SeedTree) -> RdcIdmState:
        """Return the state as it is: the network lives as long as the run."""
        return state

    def _gradient(self, state: RdcIdmState, index: int, problem: Problem, seed: SeedTree) -> tuple[Tensor, Tensor]:
        """Return IDM's objective and the contrast, and their gradient."""
        config, golden = self.config.rdc, self._golden(state)
        rows = real_pools(golden, problem, config)
        loss, gradient = self._matching(state, index, problem, rows, seed)
        if golden is None or not config.contrasts:
            return loss, gradient
        more, turn = contrast_gradient(
            state.images, problem, state.networks[index], self._view, golden, config, seed.child("contrast")
        )
        return loss + more, gradient + turn

    def _learn(self, state: RdcIdmState, fetched: Sequence[int], problem: Problem, seed: SeedTree) -> RdcIdmState:
        """Return the state after one step of the network and, at the end of an epoch, with a new golden set."""
        config, rdc = self.config, self.config.rdc
        epoch = state.iteration / rdc.steps_per_epoch
        theta = state.networks[0]
        found, labels = lesson(problem, theta, self._golden(state), epoch, config.batch_train, rdc, seed)
        num_epochs = -(-config.iterations // rdc.steps_per_epoch)
        sgd = dataclasses.replace(config.sgd, lr=config.lr_net * rdc.lr_factor(int(epoch), num_epochs))
        theta, velocity = sgd.step(theta, state.velocities[0], found.gradient)
        state = dataclasses.replace(
            state,
            networks=theta.unsqueeze(0),
            velocities=velocity.unsqueeze(0),
            correct=state.correct + (found.logits.argmax(1) == labels).sum(),
            seen=state.seen + len(labels),
        )
        done = state.iteration + 1
        if done % rdc.steps_per_epoch or done < rdc.warm_up * rdc.steps_per_epoch:
            return state
        return with_mined(RdcIdmState, state, state.refreshed(problem, theta, rdc))
