"""The contracts find what is wrong: each broken class fails the one test that is about its fault."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from ddnl_ray.testing import ExpertsContract, MethodContract


def contracts() -> dict[str, Any]:
    """Return the classes of tests in broken.py, by name."""
    spec = importlib.util.spec_from_file_location("broken", Path(__file__).with_name("broken.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if name.startswith("Test")}


CONTRACTS = contracts()


@pytest.mark.parametrize("name", CONTRACTS)
def test_each_fault_fails_its_own_test_alone(verdicts: dict[str, Any], name: str) -> None:
    breaks = CONTRACTS[name].breaks
    assert sorted(verdicts[name].failed) == ([breaks] if breaks else []), verdicts[name].failed
    assert len(verdicts[name].passed) > 4


@pytest.mark.parametrize("contract", [MethodContract, ExpertsContract])
def test_each_test_can_fail(contract: type[Any]) -> None:
    """A test that joins a contract needs a class in broken.py that fails it."""
    broken = {each.breaks for each in CONTRACTS.values() if issubclass(each, contract)}
    assert broken - {""} == {name for name in vars(contract) if name.startswith("test_")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "TestForgetsMomentum",
            "a state must come back from its tensors as it was (after 1 steps)",
        ),
        ("TestNoiseFromHash", "the same seed must give the same bits in another process (other bits in: export.images"),
        ("TestMovesNumpy", "a method must not draw from global generators, but moved numpy.random"),
        ("TestMovesInPlace", "the state after 0 steps must not change later (other bits in: images)"),
        ("TestLetsMomentumDecay", "a refused step moves the iteration alone, but moved ['iteration', 'velocity']"),
        ("TestExportsOneClass", "with ipc 1 the classes have [3, 0, 0] images"),
        ("TestReadsTheEnd", "epochs [12] of the experts were read undeclared"),
        ("TestAllTheLast", "two snapshots are equal: were they copied when they were taken?"),
    ],
)
def test_the_message_is_the_rule(verdicts: dict[str, Any], name: str, message: str) -> None:
    assert message in verdicts[name].failed[CONTRACTS[name].breaks]


def test_a_contract_inside_a_function_is_refused() -> None:
    class TestHidden(CONTRACTS["TestSound"]):  # type: ignore[misc, name-defined]
        pass

    with pytest.raises(AssertionError, match="TestHidden is made inside a function; put it at the top of a module"):
        TestHidden().test_another_process_gives_the_same_bits("cpu")
