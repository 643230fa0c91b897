"""Composed method names, their settings, and whose parameter a name is."""

from __future__ import annotations

import pytest

from ddnl_ray.distill import METHODS
from ddnl_ray.errors import RequestError
from ddnl_ray.robust import BASES, NAMES, compose
from ddnl_ray.robust.composition import ON_NETWORKS
from ddnl_ray.robust.sgr import SgrConfig
from ddnl_ray.robust.tad import TadConfig

DATM = {"syn_steps": 3, "max_start_epoch": 2, "lr_img": 1.0, "lr_lr": 0.1, "lr_y": 1.0}


@pytest.mark.parametrize(
    ("name", "base", "variant", "configs"),
    [
        ("datm", "datm", "none", ()),
        ("datm+tad", "datm", "tad", ("tad",)),
        ("mtt+sgr", "mtt", "sgr", ("sgr",)),
        ("att+tiat", "att", "tiat", ("sgr", "tiat")),
        ("datm+sgr+tiat", "datm", "sgr_tiat", ("sgr", "tiat")),
        ("mtt+rdc", "mtt", "rdc", ("rdc",)),
        ("full", "full", "none", ()),
    ],
)
def test_a_name_is_its_base_and_its_parts(name: str, base: str, variant: str, configs: tuple[str, ...]) -> None:
    found = compose(name)
    assert (found.base, found.variant, found.configs) == (base, variant, configs)


def test_every_method_with_experts_takes_every_part_and_no_other_does() -> None:
    assert {"mtt", "ftd", "datm", "att"} <= set(BASES)
    on_experts = [name for name in NAMES if compose(name).on_experts]
    assert {name.partition("+")[0] for name in on_experts} == set(BASES)
    assert all(METHODS[base].method.matches_trajectories for base in BASES)
    assert len(NAMES) == len(set(NAMES)) == len(METHODS) + 5 * len(BASES) + len(ON_NETWORKS)


@pytest.mark.parametrize("name", ["datm+tiat+sgr", "random+tad", "datm+tad+sgr", "datm+", "tad"])
def test_other_names_are_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(RequestError, match="unknown method"):
        compose(name)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(RequestError, match=r"datm\+sgr\+tiat"):
        compose("datm+sgr+tait")


def test_a_parameter_belongs_to_the_base_or_to_a_part() -> None:
    values = {"datm.lr_img": 3, "mtt.lr_img": 4, "tad.top_k": 5, "sgr.neighbours": 6}
    assert compose("datm+tad").own(values) == {"lr_img": 3, "tad.top_k": 5}
    assert compose("mtt+tiat").own(values) == {"lr_img": 4, "sgr.neighbours": 6}
    assert compose("full").own(values) == {}
    assert {"datm.lr_img", "tad.top_k"} <= set(compose("datm+tad").parameters)
    assert "tad.top_k" not in compose("datm+sgr").parameters


def test_settings_are_the_configurations_of_base_and_parts() -> None:
    found = compose("datm+tad").settings(DATM | {"tad.top_k": 7})
    assert found.base.lr_img == 1.0
    assert found.parts == {"tad": TadConfig(top_k=7)}
    assert (found.value("tad.top_k"), found.value("lr_y")) == (7, 1.0)
    assert compose("datm+tiat").settings(DATM).parts["sgr"] == SgrConfig()


def test_a_bad_value_of_a_part_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match=r"^tad: top_k must be"):
        compose("datm+tad").settings(DATM | {"tad.top_k": 0})
