"""The global generators of Python, NumPy and torch: which a method must leave alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ddnl_ray.testing.bits import Bits


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators; put their states back afterwards."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed notes a call stack for every CUDA device to come
    if cuda:
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def positions() -> Bits:
    """Return what identifies the state of every global generator."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "random": repr(random.getstate()),
        "numpy.random": repr([np.asarray(part).tolist() for part in np.random.get_state()]),  # noqa: NPY002
        "torch": repr(torch.get_rng_state().tolist()),
        "torch.cuda": repr([state.tolist() for state in cuda]),
    }
