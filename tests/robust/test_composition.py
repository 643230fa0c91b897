"""Composed method names, their settings, and whose parameter a name is."""

from __future__ import annotations

import pytest

from analysis.names import method_name
from analysis.published import VARIANTS, accuracies
from ddnl_ray.denoise import CLEANERS
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
        ("dividemix>datm", "datm", "two_stage_dividemix", ("dividemix",)),
        ("c2d>mtt", "mtt", "c2d", ("c2d",)),
        ("l2b>att", "att", "l2b_dividemix", ("l2b",)),
        ("lossmix>full", "full", "two_stage_lossmix", ("lossmix",)),
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


def test_every_method_goes_with_every_cleaner_and_is_named_as_it_is_written() -> None:
    for cleaner in CLEANERS:
        for base in METHODS:
            name = f"{cleaner}>{base}"
            found = compose(name)
            assert (found.base, found.cleaner, found.parts) == (base, cleaner, ())
            assert method_name(found.base, found.variant).removesuffix(" (last epoch)") == name


def test_published_two_stage_rows_are_joined_with_ours() -> None:
    ours = {(each.base, each.variant) for each in map(compose, (f"{a}>{b}" for a in CLEANERS for b in METHODS))}
    plain = {"none", "tad", "sgr", "tiat", "sgr_tiat", "rdc", "tad_partial", "rdc_partial"}
    published = {(each.base_method, each.variant) for each in accuracies() if each.variant not in plain}
    assert published <= ours
    assert {variant for _, variant in published} == set(VARIANTS) - plain


def test_settings_of_a_cleaner_have_its_prefix() -> None:
    found = compose("dividemix>datm")
    values = {"datm.lr_img": 3, "dividemix.warm_up": 5, "lossmix.epochs": 6}
    assert found.own(values) == {"lr_img": 3, "dividemix.warm_up": 5}
    assert {"datm.lr_img", "dividemix.warm_up"} <= set(found.parameters)
    settings = found.settings(DATM | {"dividemix.warm_up": 5})
    assert settings.value("dividemix.warm_up") == 5
    with pytest.raises(RequestError, match=r"^dividemix: sure must lie in"):
        found.settings(DATM | {"dividemix.sure": 2.0})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dividmix>datm", r"unknown cleaner 'dividmix' in method .*: did you mean 'dividemix'"),
        ("dividemix>dtm", r"unknown method 'dtm' in .*: did you mean 'datm'"),
        ("knn>lossmix>datm", "has 3 stages, but labels are cleaned once"),
        ("knn>datm+tad", r"datm\+tad decides itself which labels to trust, .*; use knn>datm, or datm\+tad alone"),
        ("knn>idm+rdc", "use knn>idm"),
        ("datm>knn", "unknown cleaner 'datm'"),
        ("knn>", "unknown method ''"),
    ],
)
def test_stages_that_do_not_go_together_are_refused(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        compose(name)
