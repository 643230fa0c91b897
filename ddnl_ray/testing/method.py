"""What every distillation method keeps (see :class:`ddnl_ray.distill.Method`), as tests to inherit.

Each test is about one rule and shields itself from the others, so that one fault fails one test, whose message is the
rule that was broken.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from ddnl_ray.distill.base import Method, Problem
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree
from ddnl_ray.testing.bits import Bits, bits, copied, differing, require_same
from ddnl_ray.testing.forms import first_classes, require_balance, require_finite, require_form, require_state_value
from ddnl_ray.testing.generators import positions, seeded
from ddnl_ray.testing.problems import WatchedExperts, scaled, toy_problem
from ddnl_ray.testing.process import outcome_elsewhere
from ddnl_ray.testing.run import Run


class MethodContract:
    """The tests of a method.

    Subclass it at the top of a test module, and set ``method`` and ``config``::

        class TestMine(MethodContract):
            method = Mine
            config = MineConfig(iterations=4)

    ``config.iterations`` steps are taken about 25 times in all, so let there be few; a configuration without
    iterations is that of a method whose first state is its last. The tests run on the CPU and, where there is one, on a
    CUDA device (with the mark ``gpu``, if pytest's configuration has it).

    A deviation that is meant is said so where it is tested: override the test with ``pytest.mark.xfail(strict=True,
    reason=...)`` on it and call ``super()``.

    Attributes:
        method: The method's class; it is made of the configuration alone.
        config: A configuration with which a run on :meth:`problem` takes milliseconds and accepts a step.
        ipc: Images per class; None for a method that keeps the whole set.
        draws: Whether the result depends on the seed.
    """

    method: ClassVar[type[Method[Any]]]
    config: ClassVar[Any]
    ipc: ClassVar[int | None] = 2
    draws: ClassVar[bool] = True

    def problem(self, device: torch.device) -> Problem:
        """Return a problem on a device, equal at every call, in tensors of its own.

        As in a trial, there is a network only for a method that sets ``needs_network`` or ``needs_experts``, and there
        are experts only for one that sets the latter.
        """
        return toy_problem(self.ipc, self.method.needs_experts, self.method.needs_network, device)

    def run(self, device: str, seed: int = 0, isolated: bool = True) -> Run:
        """Return a new instance of the method on a new problem."""
        steps = int(getattr(self.config, "iterations", 0))
        tree = SeedTree.root(seed).child("distill")
        return Run(self.method(self.config), self.problem(torch.device(device)), tree, steps, isolated)

    def outcome(self, device: str) -> Bits:
        """Return what identifies the result of a run; another process calls it, too."""
        return self.run(device).outcome()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the tests that ask for a device on every kind there is."""
        if "device" not in metafunc.fixturenames:
            return
        known = {line.split(":")[0].strip() for line in metafunc.config.getini("markers")}
        marks = [pytest.mark.gpu] if "gpu" in known else []
        cuda = [pytest.param("cuda", marks=marks)] if torch.cuda.is_available() else []
        metafunc.parametrize("device", ["cpu", *cuda])

    def test_config_is_a_frozen_record_of_json_values(self) -> None:
        """Configurations are compared, hashed, written as JSON and read back; an unknown field is an error."""
        config: Any = self.config
        kind: Any = type(config)
        assert hasattr(kind, "__dataclass_fields__"), f"{kind.__name__} must be a dataclass"
        with pytest.raises(dataclasses.FrozenInstanceError):
            copy.copy(config).iterations = 1
        values = dataclasses.asdict(config)
        try:
            again = kind(**json.loads(json.dumps(values)))
        except TypeError as error:
            raise AssertionError(f"the fields of {kind.__name__} must be JSON values ({error})") from error
        assert again == config, f"{kind.__name__} must come back from JSON as it was, but {again} came"
        assert hash(again) == hash(config), f"equal configurations of {kind.__name__} must have equal hashes"
        with pytest.raises(TypeError, match="no_such_field"):
            kind(**values, no_such_field=1)

    def test_states_hold_integers_and_tensors_alone(self, device: str) -> None:
        """A state is a record of integers, and of tensors on the device that belong to no graph."""
        run = self.run(device)
        first = run.init().iteration
        assert first == 0, f"a run starts at iteration 0, not {first}"
        for state in run.states():
            assert type(state) is self.method.state, f"the state is a {type(state).__name__}, not {self.method.state}"
            for field in dataclasses.fields(state):
                require_state_value(field.name, getattr(state, field.name), device)

    def test_steps_count_and_move(self, device: str) -> None:
        """Each step adds 1 to the iteration; an accepted one has a finite loss; a refused one leaves all else."""
        run = self.run(device)
        state, accepted = run.init(), 0
        if not run.steps:
            before = bits(state)
            after, info = run.step(state)
            require_same(bits(after), before, "without iterations a step must leave the state as it is")
            assert not info.accepted, "without iterations a step cannot be accepted"
            return
        for _ in range(run.steps):
            before, iteration = bits(state), state.iteration
            state, info = run.step(state)
            assert type(info.loss) is float, f"StepInfo.loss must be a float, but got {type(info.loss).__name__}"
            assert type(info.accepted) is bool, f"StepInfo.accepted must be a bool, but got {info.accepted!r}"
            assert state.iteration == iteration + 1, f"iteration {iteration} was followed by {state.iteration}"
            moved = set(differing(bits(state), before)) - {"iteration"}
            if info.accepted:
                assert math.isfinite(info.loss), f"a step with loss {info.loss} was accepted"
            else:
                assert not moved, f"a refused step must leave the state as it is, but moved {sorted(moved)}"
            accepted += bool(info.accepted and moved)
        assert accepted, "no step moved anything: give the contract a configuration whose steps are accepted"

    def test_continues_from_its_tensors(self, device: str) -> None:
        """A run that is stopped after any step and read back from safetensors ends with the same bits."""
        straight = self.run(device)
        last = self.outcome(device)
        moments = {0, 1, straight.steps // 2, straight.steps - 1, straight.steps}
        for moment, state in enumerate(straight.states()):
            if moment not in moments:
                continue
            stored = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors().items()})
            restored = self.method.state.from_tensors(load(stored), device)
            rule = f"a state must come back from its tensors as it was (after {moment} steps)"
            require_same(bits(restored), bits(state), rule)
            rule = f"a run continued after {moment} steps must end like one that never stopped"
            require_same(self.run(device).outcome(moment, restored), last, rule)

    def test_another_process_gives_the_same_bits(self, device: str) -> None:
        """Same seed, same kind of device: same bits, in a process with another order of hashes."""
        rule = "the same seed must give the same bits in another process"
        require_same(outcome_elsewhere(type(self), device), self.outcome(device), rule)

    def test_another_seed_gives_other_bits(self, device: str) -> None:
        """The result depends on the seed, or (``draws = False``) does not."""
        first, second = (self.run(device, seed).outcome() for seed in (0, 1))
        if self.draws:
            assert first != second, "two seeds gave the same bits; a method that draws nothing says draws = False"
        else:
            require_same(second, first, "a method with draws = False must give the same bits for every seed")

    def test_a_step_depends_on_its_arguments_alone(self, device: str) -> None:
        """Taking a step again, or steps of another run between two, changes nothing."""
        alone = [[bits(state) for state in self.run(device, seed).states()] for seed in (0, 1)]
        first = self.run(device)
        runs = [first, dataclasses.replace(first, seed=self.run(device, 1).seed)]
        states = [run.init() for run in runs]
        for taken in range(first.steps + 1):
            for place, run in enumerate(runs):
                found, given = bits(states[place]), [copied(states[place]) for _ in range(3)]
                require_same(found, alone[place][taken], "runs that take turns must not disturb each other")
                rule = "an export that is made again must give the same bits"
                require_same(bits(run.export(given[0])), bits(run.export(given[1])), rule)
                if taken < first.steps:
                    states[place], _ = run.step(states[place])
                    rule = "a step that is taken again from the same state must give the same bits"
                    require_same(bits(run.step(given[2])[0]), bits(states[place]), rule)

    def test_a_step_leaves_the_past_as_it_was(self, device: str) -> None:
        """Neither given states, nor their tensors, nor earlier exports, nor the problem change later."""
        run = self.run(device)
        past: list[tuple[str, Any, Bits]] = []

        def keep(name: str, record: Any) -> None:
            past.append((name, record, bits(record)))

        keep("the problem", _data(run.problem))
        for taken, state in enumerate(run.states()):
            keep(f"the state after {taken} steps", state)
            keep(f"the tensors of the state after {taken} steps", state.tensors())
            keep(f"the set exported after {taken} steps", run.export(state))
        for name, record, before in past:
            require_same(bits(record), before, f"{name} must not change later")

    def test_global_generators_neither_matter_nor_move(self, device: str) -> None:
        """All randomness comes from the seed that is given."""
        outcomes = []
        for poison in (1, 2):
            run = self.run(device, isolated=False)
            with seeded(poison):
                before = positions()
                outcomes.append(run.outcome())
                moved = differing(positions(), before)
            assert not moved, f"a method must not draw from global generators, but moved {', '.join(moved)}"
        require_same(outcomes[0], outcomes[1], "a method must not read global generators")

    @pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
    def test_refuses_what_is_not_finite(self, device: str, factor: float) -> None:
        """A step on images and experts that are not finite, or hugely too large, does no harm."""
        run = self.run(device)
        if not run.steps:
            pytest.skip("a method without iterations takes no step")
        other = self.run(device)
        state, twin = run.step(run.init())[0], other.step(other.init())[0]
        before = bits(state)
        after, info = dataclasses.replace(run, problem=scaled(run.problem, factor)).step(state)
        if info.accepted:
            assert math.isfinite(info.loss), f"a step with loss {info.loss} was accepted"
            require_finite(after)
            if not math.isfinite(factor):
                rule = f"data times {factor} went into an accepted step; it must be refused, with a loss that says so"
                require_same(bits(after), bits(other.step(twin)[0]), rule)
        else:
            moved = differing(bits(after), before)
            assert moved == ["iteration"], f"a refused step moves the iteration alone, but moved {moved}"
            said = math.isfinite(factor) or not math.isfinite(info.loss)
            assert said, f"the loss of a step on data times {factor} must be NaN or infinite, but is {info.loss}"
        given = copied(after)
        following, expected = run.step(after)[0], other.step(given)[0]
        rule = "what follows a step on bad data must be what it is for a method that has seen none"
        require_same(bits(following), bits(expected), rule)
        require_finite(following)
        require_same(bits(run.export(following)), bits(other.export(expected)), rule)

    def test_exports_what_was_asked_for(self, device: str) -> None:
        """A set has ``ipc`` images of every class, of the training images' form, with valid labels and step size."""
        for ipc in sorted({1, self.ipc}) if self.ipc else [None]:
            run = self.run(device)
            run = dataclasses.replace(run, problem=dataclasses.replace(run.problem, ipc=ipc))
            exports = [run.export(state) for state in run.states()]
            for exported in exports:
                require_form(exported, run.problem)
                if ipc is not None and not exported.labels.is_floating_point():
                    require_balance(exported.labels, run.problem, ipc)
            if ipc is not None and exports[0].labels.is_floating_point():
                require_balance(first_classes(exports[0], run.problem), run.problem, ipc)

    def test_refuses_more_images_than_a_class_has(self, device: str) -> None:
        """An ``ipc`` above the size of the smallest class is a wrong request, said before a step is taken."""
        if self.ipc is None:
            pytest.skip("a method that keeps the whole set has no ipc")
        run = self.run(device)
        ipc = int(run.problem.labels.bincount(minlength=run.problem.num_classes).min()) + 1
        with pytest.raises(RequestError, match=rf"\b{ipc}\b"):
            dataclasses.replace(run, problem=dataclasses.replace(run.problem, ipc=ipc)).init()

    def test_an_export_may_be_edited(self, device: str) -> None:
        """Editing an exported set in place changes neither the state nor, but for a whole set, the problem."""
        run = self.run(device)
        for state in run.states():
            kept = {"state": state} | ({} if self.ipc is None else {"problem": _data(run.problem)})
            exported = run.export(state)
            before = {name: bits(record) for name, record in kept.items()}
            exported.images.neg_().sub_(1)
            exported.labels.neg_().sub_(1)
            for name, record in kept.items():
                rule = f"export must hand out tensors of its own: editing them changed the {name}"
                require_same(bits(record), before[name], rule)

    def test_reads_the_declared_epochs_alone(self, device: str) -> None:
        """A sweep holds experts up to ``config.last_epoch``, and the final one if ``reads_final``; no other is read."""
        run = self.run(device)
        if run.problem.experts is None:
            pytest.skip("a method without experts reads no epochs")
        watched = WatchedExperts(run.problem.experts)
        dataclasses.replace(run, problem=dataclasses.replace(run.problem, experts=watched)).outcome()
        assert hasattr(self.config, "last_epoch"), "a configuration must have last_epoch, the last epoch that is read"
        held = {*range(self.config.last_epoch + 1)} | ({watched.final_epoch} if self.method.reads_final else set())
        assert watched.epochs <= held, f"epochs {sorted(watched.epochs - held)} of the experts were read undeclared"

    def test_is_silent(
        self,
        device: str,
        capfd: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A run prints nothing and leaves no file."""
        run = self.run(device)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        capfd.readouterr()
        run.outcome()
        printed = capfd.readouterr()
        assert not printed.out + printed.err, f"a method prints nothing, but got {printed.out + printed.err!r}"
        files = sorted(path.name for path in tmp_path.rglob("*"))
        assert not files, f"a method writes no files, but left {files}"


def _data(problem: Problem) -> dict[str, Tensor]:
    """Return the tensors of a problem: images, labels and the network's own parameters."""
    network = {} if problem.network is None else problem.network.module.state_dict()
    return {"images": problem.images, "labels": problem.labels, **network}
