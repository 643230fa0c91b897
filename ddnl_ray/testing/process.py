"""Running a contract's method in another process, with another order of hashes."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import operator
import os
import sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from types import ModuleType
from typing import Any

import pytest
import torch

from ddnl_ray.testing.bits import Bits

TIMEOUT_S = 300.0


def outcome_elsewhere(contract: type[Any], device: str) -> Bits:
    """Return ``contract().outcome(device)`` as another process computes it.

    One process serves all contracts. It imports the contract's module by name, or from its file where it is not on the
    import path.

    Raises:
        AssertionError: The contract cannot be found from another process, as it is not at the top of a module; or that
            process has died.
    """
    name = contract.__qualname__
    if "<locals>" in name:
        raise AssertionError(
            f"{name} is made inside a function; put it at the top of a module, where another process finds it"
        )
    place = contract.__module__, inspect.getfile(contract)
    try:
        return _other_process().submit(_outcome, *place, name, device, torch.get_num_threads()).result(TIMEOUT_S)
    except BrokenExecutor as error:
        _other_process.cache_clear()
        raise AssertionError(f"the process in which {name} ran has died") from error


@functools.cache
def _other_process() -> ProcessPoolExecutor:
    """Start the process; it ends with this one."""
    executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
        executor.submit(os.getpid).result(TIMEOUT_S)  # reads its environment when it starts
    return executor


def _outcome(module: str, file: str, name: str, device: str, threads: int) -> Bits:
    """Do the work, there."""
    torch.set_num_threads(threads)
    contract = operator.attrgetter(name)(_module(module, file))
    outcome: Bits = contract().outcome(device)
    return outcome


def _module(name: str, file: str) -> ModuleType:
    """Import a module by its name, where that leads to its file, else from the file."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == file:
        return loaded
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is not None and found.origin == file:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
