"""A sound method, and methods that break one rule each: what the contract must and must not find.

No ``from __future__ import annotations`` here, so that states come back from their tensors without it, too.
"""

import math
import os
import random
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ddnl_ray.distill import Distilled, Method, Problem, State, StepInfo
from ddnl_ray.distill.base import pick_per_class
from ddnl_ray.experts import Experts
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing import ExpertsContract, MethodContract


@dataclass(frozen=True)
class SoundConfig:
    iterations: int = 3
    rate: float = 0.5
    last_epoch: int = 2


@dataclass(frozen=True)
class SoundState(State):
    images: Tensor
    labels: Tensor
    velocity: Tensor | None
    moves: int


class Sound(Method[SoundState]):
    """Pulls real images to the mean of their class, with momentum and noise."""

    name: ClassVar[str] = "sound"
    state: ClassVar[type[SoundState]] = SoundState

    def __init__(self, config: Any) -> None:
        self.config = config

    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        rows = pick_per_class(problem, seed.child("init"))
        return SoundState(0, problem.images[rows], problem.labels[rows], None, 0)

    def step(self, state: SoundState, problem: Problem, seed: SeedTree) -> tuple[SoundState, StepInfo]:
        means = torch.stack([problem.images[problem.rows_of(label)].mean(0) for label in range(problem.num_classes)])
        gap = state.images - means[state.labels] + self.noise(state, seed).to(problem.device)
        loss = float(gap.detach().square().mean())
        return self.move(state, gap, loss) if math.isfinite(loss) else self.refuse(state, loss)

    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return 0.1 * torch.randn(state.images.shape, generator=seed.child("step", state.iteration).torch())

    def move(self, state: SoundState, gap: Tensor, loss: float) -> tuple[SoundState, StepInfo]:
        velocity = gap if state.velocity is None else 0.5 * state.velocity + gap
        images = state.images - self.config.rate * velocity
        moved = replace(state, iteration=state.iteration + 1, images=images, velocity=velocity, moves=state.moves + 1)
        return moved, StepInfo(loss, accepted=True)

    def refuse(self, state: SoundState, loss: float) -> tuple[SoundState, StepInfo]:
        return replace(state, iteration=state.iteration + 1), StepInfo(loss, accepted=False)

    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.clone(), state.labels.clone(), 0.1)


class TestSound(MethodContract):
    method = Sound
    config = SoundConfig()
    breaks = ""


# test_config_is_a_frozen_record_of_json_values


@dataclass(unsafe_hash=True)
class LooseConfig:
    iterations: int = 3
    rate: float = 0.5


class TestConfigThatIsNotFrozen(TestSound):
    config = LooseConfig()
    breaks = "test_config_is_a_frozen_record_of_json_values"


@dataclass(frozen=True)
class TupleConfig(SoundConfig):
    sizes: tuple[int, ...] = (1, 2)


class TestConfigThatJsonChanges(TestSound):
    config = TupleConfig()
    breaks = "test_config_is_a_frozen_record_of_json_values"


@dataclass(frozen=True)
class PathConfig(SoundConfig):
    folder: Path = Path()


class TestConfigThatJsonCannotHold(TestSound):
    config = PathConfig()
    breaks = "test_config_is_a_frozen_record_of_json_values"


@dataclass(frozen=True)
class ListConfig(SoundConfig):
    sizes: list[int] = field(default_factory=list)


class TestConfigWithoutHash(TestSound):
    config = ListConfig()
    breaks = "test_config_is_a_frozen_record_of_json_values"


class ObligingConfig(SoundConfig):
    def __init__(self, iterations: int = 3, rate: float = 0.5, last_epoch: int = 2, **others: Any) -> None:
        super().__init__(iterations, rate, last_epoch)


class TestConfigThatTakesUnknownFields(TestSound):
    config = ObligingConfig()
    breaks = "test_config_is_a_frozen_record_of_json_values"


# test_states_hold_integers_and_tensors_alone


class KeepsGraph(Sound):
    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        state = super().init(problem, seed)
        return replace(state, images=state.images.requires_grad_())

    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return super().export(replace(state, images=state.images.detach()), problem)


class TestKeepsGraph(TestSound):
    method = KeepsGraph
    breaks = "test_states_hold_integers_and_tensors_alone"


class StartsAtOne(Sound):
    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        return replace(super().init(problem, seed), iteration=1)


class TestStartsAtOne(TestSound):
    method = StartsAtOne
    breaks = "test_states_hold_integers_and_tensors_alone"


# test_steps_count_and_move


class SkipsIterations(Sound):
    def move(self, state: SoundState, gap: Tensor, loss: float) -> tuple[SoundState, StepInfo]:
        moved, info = super().move(state, gap, loss)
        return replace(moved, iteration=moved.iteration + 1), info


class TestSkipsIterations(TestSound):
    method = SkipsIterations
    breaks = "test_steps_count_and_move"


class LossAsTensor(Sound):
    def move(self, state: SoundState, gap: Tensor, loss: float) -> tuple[SoundState, StepInfo]:
        moved, _ = super().move(state, gap, loss)
        return moved, StepInfo(torch.tensor(loss), accepted=True)  # type: ignore[arg-type]


class TestLossAsTensor(TestSound):
    method = LossAsTensor
    breaks = "test_steps_count_and_move"


class MovesWhenRefused(Sound):
    def move(self, state: SoundState, gap: Tensor, loss: float) -> tuple[SoundState, StepInfo]:
        moved, info = super().move(state, gap, loss)
        return moved, StepInfo(info.loss, accepted=state.iteration != 1)


class TestMovesWhenRefused(TestSound):
    method = MovesWhenRefused
    breaks = "test_steps_count_and_move"


class RefusesAll(Sound):
    def move(self, state: SoundState, gap: Tensor, loss: float) -> tuple[SoundState, StepInfo]:
        return self.refuse(state, loss)


class TestRefusesAll(TestSound):
    method = RefusesAll
    breaks = "test_steps_count_and_move"


@dataclass(frozen=True)
class NoSteps:
    """Nothing to set."""


class StepsAllTheSame(Sound):
    def move(self, state: SoundState, gap: Tensor, loss: float) -> tuple[SoundState, StepInfo]:
        return replace(state, iteration=1), StepInfo(loss, accepted=True)


class TestStepsAllTheSame(TestSound):
    method = StepsAllTheSame
    config = NoSteps()
    breaks = "test_steps_count_and_move"


# test_continues_from_its_tensors


@dataclass(frozen=True)
class ForgetfulState(SoundState):
    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super().tensors().items() if name != "velocity"}


class ForgetsMomentum(Sound):
    state = ForgetfulState

    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        return ForgetfulState(**vars(super().init(problem, seed)))


class TestForgetsMomentum(TestSound):
    method = ForgetsMomentum
    breaks = "test_continues_from_its_tensors"


class KeepsHalfToItself(Sound):
    """Remembers that it began the run, which a method that goes on with the run cannot."""

    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        self.begun = True
        return super().init(problem, seed)

    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return super().noise(state, seed) * (1 + getattr(self, "begun", False) * (state.iteration == 2))


class TestKeepsHalfToItself(TestSound):
    method = KeepsHalfToItself
    breaks = "test_continues_from_its_tensors"


# test_another_process_gives_the_same_bits


class NoiseFromHash(Sound):
    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return super().noise(state, seed.child(hash("noise")))


class TestNoiseFromHash(TestSound):
    method = NoiseFromHash
    breaks = "test_another_process_gives_the_same_bits"


# test_another_seed_gives_other_bits


class IgnoresSeed(Sound):
    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        return super().init(problem, SeedTree.root(0))

    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return super().noise(state, SeedTree.root(0))


class TestIgnoresSeed(TestSound):
    method = IgnoresSeed
    breaks = "test_another_seed_gives_other_bits"


class TestDrawsAfterAll(TestSound):
    draws = False
    breaks = "test_another_seed_gives_other_bits"


# test_a_step_depends_on_its_arguments_alone


class CachesByIteration(Sound):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.cache: dict[int, Tensor] = {}

    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return self.cache.setdefault(state.iteration, super().noise(state, seed))


class TestCachesByIteration(TestSound):
    method = CachesByIteration
    breaks = "test_a_step_depends_on_its_arguments_alone"


class CountsAttempts(Sound):
    last: tuple[SeedTree, int] | None = None

    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        again, self.last = self.last == (seed, state.iteration), (seed, state.iteration)
        return super().noise(state, seed.child("again") if again else seed)


class TestCountsAttempts(TestSound):
    method = CountsAttempts
    breaks = "test_a_step_depends_on_its_arguments_alone"


class CountsExports(Sound):
    exports = 0

    def export(self, state: SoundState, problem: Problem) -> Distilled:
        self.exports += 1
        return Distilled(state.images / self.exports, state.labels.clone())


class TestCountsExports(TestSound):
    method = CountsExports
    breaks = "test_a_step_depends_on_its_arguments_alone"


# test_a_step_leaves_the_past_as_it_was


class MovesInPlace(Sound):
    def move(self, state: SoundState, gap: Tensor, loss: float) -> tuple[SoundState, StepInfo]:
        state.images.sub_(self.config.rate * gap)
        return replace(state, iteration=state.iteration + 1), StepInfo(loss, accepted=True)


class TestMovesInPlace(TestSound):
    method = MovesInPlace
    breaks = "test_a_step_leaves_the_past_as_it_was"


class CorrectsTheLabels(Sound):
    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        problem.labels[0] = 0
        return super().init(problem, seed)

    def step(self, state: SoundState, problem: Problem, seed: SeedTree) -> tuple[SoundState, StepInfo]:
        problem.labels[0] = 0
        return super().step(state, problem, seed)


class TestCorrectsTheLabels(TestSound):
    method = CorrectsTheLabels
    breaks = "test_a_step_leaves_the_past_as_it_was"


class ClampsStateAtExport(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        state.images.clamp_(-1, 1)
        return super().export(state, problem)


class TestClampsStateAtExport(TestSound):
    method = ClampsStateAtExport
    breaks = "test_a_step_leaves_the_past_as_it_was"


# test_global_generators_neither_matter_nor_move


class DrawsFromTorch(Sound):
    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return super().noise(state, seed) + 0.1 * torch.rand(())


class TestDrawsFromTorch(TestSound):
    method = DrawsFromTorch
    breaks = "test_global_generators_neither_matter_nor_move"


class MovesNumpy(Sound):
    """Does not even use what it draws."""

    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        np.random.rand()  # noqa: NPY002
        return super().noise(state, seed)


class TestMovesNumpy(TestSound):
    method = MovesNumpy
    breaks = "test_global_generators_neither_matter_nor_move"


class DrawsFromPython(Sound):
    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return super().noise(state, seed) + 0.1 * random.random()


class TestDrawsFromPython(TestSound):
    method = DrawsFromPython
    breaks = "test_global_generators_neither_matter_nor_move"


class ReadsGlobalSeed(Sound):
    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return super().noise(state, seed.child(torch.initial_seed()))


class TestReadsGlobalSeed(TestSound):
    method = ReadsGlobalSeed
    breaks = "test_global_generators_neither_matter_nor_move"


# test_refuses_what_is_not_finite


class AcceptsAll(Sound):
    def refuse(self, state: SoundState, loss: float) -> tuple[SoundState, StepInfo]:
        return self.move(state, torch.full_like(state.images, loss), loss)


class TestAcceptsAll(TestSound):
    method = AcceptsAll
    breaks = "test_refuses_what_is_not_finite"


class SwallowsNan(Sound):
    def refuse(self, state: SoundState, loss: float) -> tuple[SoundState, StepInfo]:
        return self.move(state, torch.zeros_like(state.images), 0.0)


class TestSwallowsNan(TestSound):
    method = SwallowsNan
    breaks = "test_refuses_what_is_not_finite"


class SaysZero(Sound):
    def refuse(self, state: SoundState, loss: float) -> tuple[SoundState, StepInfo]:
        return super().refuse(state, 0.0)


class TestSaysZero(TestSound):
    method = SaysZero
    breaks = "test_refuses_what_is_not_finite"


class LetsMomentumDecay(Sound):
    def refuse(self, state: SoundState, loss: float) -> tuple[SoundState, StepInfo]:
        refused, info = super().refuse(state, loss)
        return replace(refused, velocity=0.5 * state.velocity), info  # type: ignore[operator]


class TestLetsMomentumDecay(TestSound):
    method = LetsMomentumDecay
    breaks = "test_refuses_what_is_not_finite"


class DoesNotRecover(Sound):
    hurt = False

    def refuse(self, state: SoundState, loss: float) -> tuple[SoundState, StepInfo]:
        self.hurt = True
        return super().refuse(state, loss)

    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        return super().noise(state, seed) * (2 if self.hurt else 1)


class TestDoesNotRecover(TestSound):
    method = DoesNotRecover
    breaks = "test_refuses_what_is_not_finite"


class SeesNanAlone(Sound):
    """Takes an infinite loss for a good one."""

    def refuse(self, state: SoundState, loss: float) -> tuple[SoundState, StepInfo]:
        if math.isnan(loss):
            return super().refuse(state, loss)
        return self.move(state, torch.zeros_like(state.images), loss)


class TestSeesNanAlone(TestSound):
    method = SeesNanAlone
    breaks = "test_refuses_what_is_not_finite"


# test_exports_what_was_asked_for


class ExportsDoubles(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.double(), state.labels.clone())


class ExportsFlatImages(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.flatten(1).clone(), state.labels.clone())


class ExportsNan(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images / 0, state.labels.clone())


class ExportsOneClass(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.clone(), torch.zeros_like(state.labels))


class ExportsTooFew(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images[1:].clone(), state.labels[1:].clone())


class ExportsShortLabels(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.clone(), state.labels.int())


class ExportsUnknownClasses(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.clone(), state.labels + 1)


class ExportsLogits(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        one_hot = torch.eye(problem.num_classes, device=problem.device)[state.labels]
        return Distilled(state.images.clone(), 3 * one_hot)


class ExportsNegativeProbabilities(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        one_hot = torch.eye(problem.num_classes, device=problem.device)[state.labels]
        return Distilled(state.images.clone(), 2 * one_hot - 1 / problem.num_classes)


class ExportsSoftLabelsOfOneClass(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        one_hot = torch.eye(problem.num_classes, device=problem.device)[torch.zeros_like(state.labels)]
        return Distilled(state.images + 1, one_hot)


class ExportsStepSizeZero(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.clone(), state.labels.clone(), 0.0)


class TestExportsDoubles(TestSound):
    method = ExportsDoubles
    breaks = "test_exports_what_was_asked_for"


class TestExportsFlatImages(TestExportsDoubles):
    method = ExportsFlatImages


class TestExportsNan(TestExportsDoubles):
    method = ExportsNan


class TestExportsOneClass(TestExportsDoubles):
    method = ExportsOneClass


class TestExportsTooFew(TestExportsDoubles):
    method = ExportsTooFew


class TestExportsShortLabels(TestExportsDoubles):
    method = ExportsShortLabels


class TestExportsUnknownClasses(TestExportsDoubles):
    method = ExportsUnknownClasses


class TestExportsLogits(TestExportsDoubles):
    method = ExportsLogits


class TestExportsNegativeProbabilities(TestExportsDoubles):
    method = ExportsNegativeProbabilities


class TestExportsSoftLabelsOfOneClass(TestExportsDoubles):
    method = ExportsSoftLabelsOfOneClass


class TestExportsStepSizeZero(TestExportsDoubles):
    method = ExportsStepSizeZero


# test_refuses_more_images_than_a_class_has


class TakesWhatThereIs(Sound):
    def init(self, problem: Problem, seed: SeedTree) -> SoundState:
        assert problem.ipc is not None
        smallest = int(problem.labels.bincount().min())
        return super().init(replace(problem, ipc=min(problem.ipc, smallest)), seed)


class TestTakesWhatThereIs(TestSound):
    method = TakesWhatThereIs
    breaks = "test_refuses_more_images_than_a_class_has"


# test_an_export_may_be_edited


class ExportsItsState(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images, state.labels.clone())


class ExportsItsLabels(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        return Distilled(state.images.clone(), state.labels)


class ExportsTheProblem(Sound):
    """Rows 5 to 10 have each class of the toy problem twice, 6 to 8 once."""

    def export(self, state: SoundState, problem: Problem) -> Distilled:
        rows = slice(5, 11) if problem.ipc == 2 else slice(6, 9)
        return Distilled(state.images.clone(), problem.labels[rows])


class TestExportsItsState(TestSound):
    method = ExportsItsState
    breaks = "test_an_export_may_be_edited"


class TestExportsItsLabels(TestExportsItsState):
    method = ExportsItsLabels


class TestExportsTheProblem(TestExportsItsState):
    method = ExportsTheProblem


# test_reads_the_declared_epochs_alone


class ReadsAhead(Sound):
    needs_experts = True

    def step(self, state: SoundState, problem: Problem, seed: SeedTree) -> tuple[SoundState, StepInfo]:
        assert problem.experts is not None
        problem.experts.snapshot(0, self.epoch(state))
        return super().step(state, problem, seed)

    def epoch(self, state: SoundState) -> int:
        return 1 + state.iteration  # 3 in the last step


class TestReadsAhead(TestSound):
    method = ReadsAhead
    breaks = "test_reads_the_declared_epochs_alone"


class ReadsTheEnd(ReadsAhead):
    def epoch(self, state: SoundState) -> int:
        return 12


class TestReadsTheEnd(TestSound):
    method = ReadsTheEnd
    breaks = "test_reads_the_declared_epochs_alone"


class SaysThatItReadsTheEnd(ReadsTheEnd):
    reads_final = True


class TestSaysThatItReadsTheEnd(TestSound):
    method = SaysThatItReadsTheEnd


# test_is_silent


class Prints(Sound):
    def export(self, state: SoundState, problem: Problem) -> Distilled:
        print("done")
        return super().export(state, problem)


class WritesToStandardError(Sound):
    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        os.write(2, b"step")
        return super().noise(state, seed)


class WritesFile(Sound):
    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        Path("log.txt").write_text("step")
        return super().noise(state, seed)


class LeavesTemporaryFile(Sound):
    def noise(self, state: SoundState, seed: SeedTree) -> Tensor:
        os.close(tempfile.mkstemp()[0])
        return super().noise(state, seed)


class TestPrints(TestSound):
    method = Prints
    breaks = "test_is_silent"


class TestWritesToStandardError(TestPrints):
    method = WritesToStandardError


class TestWritesFile(TestPrints):
    method = WritesFile


class TestLeavesTemporaryFile(TestPrints):
    method = LeavesTemporaryFile


class Recorded:
    """Two experts of five weights and three epochs, kept in half precision (implements :class:`Experts`)."""

    final_epoch = 3

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.kept = torch.randn(2, self.final_epoch + 1, 5, generator=generator).half()

    def __len__(self) -> int:
        return len(self.kept)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return self.kept[expert, epoch].float()


class TestRecorded(ExpertsContract):
    breaks = ""

    def experts(self) -> Experts:
        return Recorded()


# test_has_experts_and_a_final_epoch


class CountsInNumpy(Recorded):
    final_epoch = np.int64(3)


class TestCountsInNumpy(TestRecorded):
    breaks = "test_has_experts_and_a_final_epoch"

    def experts(self) -> Experts:
        return CountsInNumpy()


# test_snapshots_are_float32_vectors


class AsKept(Recorded):
    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return self.kept[expert, epoch].clone()


class TestAsKept(TestRecorded):
    breaks = "test_snapshots_are_float32_vectors"

    def experts(self) -> Experts:
        return AsKept()


class InRows(Recorded):
    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return super().snapshot(expert, epoch).view(1, -1)


class TestInRows(TestRecorded):
    breaks = "test_snapshots_are_float32_vectors"

    def experts(self) -> Experts:
        return InRows()


class OfOtherSizes(Recorded):
    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return super().snapshot(expert, epoch)[expert:]


class TestOfOtherSizes(TestRecorded):
    breaks = "test_snapshots_are_float32_vectors"

    def experts(self) -> Experts:
        return OfOtherSizes()


# test_epochs_and_experts_differ


class AllTheLast(Recorded):
    """The fault of snapshots that are taken without a copy: all are the final weights."""

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return super().snapshot(expert, max(epoch, self.final_epoch))


class TestAllTheLast(TestRecorded):
    breaks = "test_epochs_and_experts_differ"

    def experts(self) -> Experts:
        return AllTheLast()


# test_reading_again_gives_the_same_bits


class OtherEveryTime(Recorded):
    def __init__(self) -> None:
        super().__init__()
        self.kept = self.kept + torch.tensor(random.SystemRandom().random()).half()


class TestOtherEveryTime(TestRecorded):
    breaks = "test_reading_again_gives_the_same_bits"

    def experts(self) -> Experts:
        return OtherEveryTime()


# test_snapshots_are_private


class HandsOutWhatItKeeps(Recorded):
    def __init__(self) -> None:
        super().__init__()
        self.kept = self.kept.float()

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return self.kept[expert, epoch]


class TestHandsOutWhatItKeeps(TestRecorded):
    breaks = "test_snapshots_are_private"

    def experts(self) -> Experts:
        return HandsOutWhatItKeeps()


class OutOfTheGraph(Recorded):
    def snapshot(self, expert: int, epoch: int) -> Tensor:
        with torch.inference_mode():
            return super().snapshot(expert, epoch)


class TestOutOfTheGraph(TestRecorded):
    breaks = "test_snapshots_are_private"

    def experts(self) -> Experts:
        return OutOfTheGraph()


# test_what_is_not_held_is_an_error


class GivesTheNearest(Recorded):
    def snapshot(self, expert: int, epoch: int) -> Tensor:
        return super().snapshot(expert, min(epoch, self.final_epoch))


class TestGivesTheNearest(TestRecorded):
    breaks = "test_what_is_not_held_is_an_error"

    def experts(self) -> Experts:
        return GivesTheNearest()
