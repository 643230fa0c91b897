"""Which networks of a run are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis.measure.chosen import chosen_networks

Rows = list[dict[str, Any]]


@pytest.fixture
def rows(row: Callable[..., dict[str, Any]]) -> Callable[..., Rows]:
    """Two repeats of every set of a method at IPC 1 and 10, at chance and above."""

    def make(rate: float, seeds: tuple[int, ...], method: str = "datm") -> Rows:
        found = []
        for ipc, accuracy in ((1, 0.1), (10, 0.6)):
            for seed in seeds:
                cell = f"{method}-{rate}-{ipc}-{seed}"
                common = {"cell": cell, "trial": f"{cell}-0000", "base_method": method, "ipc": ipc, "noise_seed": seed}
                noise = {"noise_rate": rate, "noise_rate_realised": rate}
                found += [
                    row(**common, **noise, eval_seed=repeat, accuracy=accuracy + 0.01 * seed + 0.001 * repeat - 0.01)
                    for repeat in (1, 0)
                ]
        return found

    return make


def test_the_least_noise_and_the_first_network_of_each_set(
    make_frame: Callable[..., pd.DataFrame], rows: Callable[..., Rows]
) -> None:
    found = chosen_networks(make_frame([*rows(0.6, (0, 1, 2)), *rows(0.3, (0, 1, 2))]), 0.1)
    own = found["datm"]
    assert (own.noise, own.unit, own.ipc) == ("symmetric 30 %", "distilled sets", 10)
    assert [(one.trial, one.repeat) for one in own.networks] == [(f"datm-0.3-10-{seed}-0000", 0) for seed in range(3)]
    assert own.evidence.accuracies[10].tolist() == pytest.approx([0.59, 0.6, 0.61])


def test_one_set_gives_its_networks(make_frame: Callable[..., pd.DataFrame], rows: Callable[..., Rows]) -> None:
    own = chosen_networks(make_frame(rows(0.3, (0,))), 0.1)["datm"]
    assert own.unit == "networks of one set"
    assert [one.repeat for one in own.networks] == [0, 1]


def test_nothing_above_chance_is_a_sentence(make_frame: Callable[..., pd.DataFrame], rows: Callable[..., Rows]) -> None:
    own = chosen_networks(make_frame(rows(0.3, (0, 1, 2))), 0.9)["datm"]
    assert own.ipc is None
    assert own.networks == []
    assert "beats chance" in own.evidence.reason
    assert chosen_networks(make_frame(rows(0.3, (0, 1), "full")).assign(ipc=None), 0.1) == {}
