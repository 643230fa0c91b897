"""A trial of RCIG: what its card says of scores and mirrored copies, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ddnl_ray.evaluate import EvalRecipe
from ddnl_ray.files import read_json
from ddnl_ray.models import NetworkSpec
from ddnl_ray.trial import TrialConfig

PARAMS = {
    "iterations": 4,
    "batch_real": 32,
    "inner_steps": 2,
    "hessian_steps": 2,
    "lr_inner": 1e-3,
    "lr_hessian": 1.0,
    "pool_size": 2,
    "pool_steps": 2,
}
NETWORK = NetworkSpec("doubling2", 4)


@pytest.fixture
def small(config: Callable[..., TrialConfig]) -> TrialConfig:
    evaluation = EvalRecipe(epochs=2, lr=0.01, augment="each:flip_cutout", schedule="cosine", warm_up=0.5,
                            optimizer="adam", loss="squared")  # fmt: skip
    plain = config("random")
    return replace(
        plain, method="rcig", params=PARAMS, network=NETWORK, eval_networks=(NETWORK,), evaluation=evaluation
    )


class Interrupt:
    """Raises at the first checkpoint."""

    def __call__(self, iteration: int) -> None:
        raise KeyboardInterrupt


def test_it_ends_with_a_card_and_the_same_bits_after_interrupts(
    small: TrialConfig, run: Callable[..., Any], tmp_path: Path
) -> None:
    rows = run(small, "whole")
    assert {row["outcome"] for row in rows} == {"ok"}, rows[0]["message"]
    for start in range(20):
        try:
            run(small, "pieces", checkpoint_s=0.0, on_progress=Interrupt())
            break
        except KeyboardInterrupt:
            assert start < 19
    folders = [tmp_path / "trials" / name for name in ("whole", "pieces")]
    sets = [folder.joinpath("distilled.safetensors").read_bytes() for folder in folders]
    assert sets[0] == sets[1]
    card = read_json(folders[0] / "card.json")
    assert card["labels"]["kind"] == "scores"
    assert set(card["formation"]) == {"mirror"}
    tensors = load_file(folders[0] / "distilled.safetensors")
    assert tensors["labels"].shape == (10, 10)
    assert tensors["images"].shape == (10, 1, 8, 8)
