"""Same seed, same bits: in another process, after a restart in the middle, whatever the global generators do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

SCRIPT = """
import hashlib
import torch
from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill import METHODS, Problem
from ddnl_ray.experts import ArrayExperts, ExpertRecipe, train_expert
from ddnl_ray.files import canonical
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

torch.set_num_threads(1)
SHARED = dict(iterations=6, syn_steps=3, max_start_epoch=2, batch_syn=4, lr_img=10.0, lr_lr=1e-4, lr_teacher=0.05)
CONFIGS = {
    "mtt": SHARED,
    "ftd": SHARED | dict(ema_decay=0.9),
    "att": SHARED | dict(ema_decay=0.9),
    "tesla": SHARED | dict(teacher_label=True),
    "datm": SHARED
    | dict(lr_y=5.0, threshold=10.0, max_start_epoch=3, current_max_start_epoch=1, expansion_end_epoch=3),
    "random": {},
    "full": {},
}

def fingerprint(tensors):
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()

def problem():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    images = torch.randn(24, 1, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
    spec = NetworkSpec("convnet2", 4)
    recipe = ExpertRecipe(network=spec, epochs=5, batch_size=8, lr=0.1)
    trained = [train_expert(images, labels, 3, recipe, SeedTree.root(0).child("expert", i)) for i in range(2)]
    experts = ArrayExperts([t.snapshots.numpy() for t in trained], tuple(range(6)), 5)
    network = Flat(build(spec, (1, 8, 8), 3, SeedTree.root(0).torch()))
    return Problem(images, labels, 3, 2, network, Dsa(), experts)

def run(name, seed=0, restart_at=None):
    kind, data = METHODS[name], problem()
    method, tree = kind.method(kind.config(**CONFIGS[name])), SeedTree.root(seed).child("distill")
    state = method.init(data, tree)
    accepted = 0
    for step in range(CONFIGS[name].get("iterations", 0)):
        if step == restart_at:
            state = type(state).from_tensors(state.tensors(), "cpu")
        state, info = method.step(state, data, tree)
        accepted += info.accepted
    out = method.export(state, data)
    return accepted, fingerprint(state.tensors() | {"out.images": out.images, "out.labels": out.labels})

def result():
    return {name: run(name) for name in CONFIGS}
"""
LEARNERS = ["mtt", "ftd", "att", "tesla", "datm"]
METHODS = [*LEARNERS, "random", "full"]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The names that the script defines, in this process."""
    names: dict[str, Any] = {}
    exec(SCRIPT, names)
    return names


def test_another_process_gives_the_same_bits(script: dict[str, Any], elsewhere: Callable[[str, int], Any]) -> None:
    here = {name: list(value) for name, value in script["result"]().items()}
    poisoned = SCRIPT + "\nimport numpy, random\ntorch.manual_seed(9); numpy.random.seed(9); random.seed(9)\n"
    assert elsewhere(poisoned, 4242) == here
    assert set(here) == set(METHODS)
    assert [here[name][0] for name in LEARNERS] == [6] * len(LEARNERS)
    assert len({bits for _, bits in here.values()}) == len(here)


@pytest.mark.parametrize("name", METHODS)
def test_global_generators_neither_matter_nor_move(
    script: dict[str, Any],
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
    name: str,
) -> None:
    results = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            results.append(script["run"](name))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("restart_at", [1, 5])
def test_a_restart_from_tensors_changes_nothing(script: dict[str, Any], name: str, restart_at: int) -> None:
    assert script["run"](name, restart_at=restart_at) == script["run"](name)


@pytest.mark.parametrize("name", [*LEARNERS, "random"])
def test_another_seed_differs(script: dict[str, Any], name: str) -> None:
    assert script["run"](name, seed=1)[1] != script["run"](name, seed=0)[1]
