"""The sweep file: what it takes, and what it says about what it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ddnl_ray.errors import RequestError
from ddnl_ray.sweep.read import parse_sweep, read_sweep
from ddnl_ray.sweep.schema import SweepFile

SHIPPED = Path(__file__).parents[2] / "sweeps"
MINIMAL: dict[str, Any] = {"name": "x", "grid": {"method": ["full"]}}
Read = Callable[..., SweepFile]

UNKNOWN = [
    ("dat: {}", "dat", "data"),
    ("profils: {}", "profils", "profiles"),
    ("data: {nmae: digits}", "data.nmae", "name"),
    ("data: {val_fractoin: 0.2}", "data.val_fractoin", "val_fraction"),
    ("grid: {method: [full], noise: [{kinds: none}]}", "grid.noise.0.kinds", "kind"),
    ("search: {trial: 3}", "search.trial", "trials"),
    ("search: {space: {datm.lr_img: {log_unifrm: [1, 2]}}}", "search.space.datm.lr_img.log_unifrm", "log_uniform"),
    ("evaluate: {epoch: 3}", "evaluate.epoch", "epochs"),
    ("evaluate: {full: {epoch: 3}}", "evaluate.full.epoch", "epochs"),
    ("experts: {learning_rho: 3}", "experts.learning_rho", "rho"),
    ("budget: {iteration: 3}", "budget.iteration", "iterations"),
    ("model: {widht: 3}", "model.widht", "width"),
    ("resources: {gpus: 1}", "resources.gpus", "gpu"),
    ("stopper: {kind: asha, grace: 1, reduction: 2}", "stopper.reduction", "reduction_factor"),
]


def document(text: str) -> dict[str, Any]:
    return {**MINIMAL, **yaml.safe_load(text)}


@pytest.mark.parametrize(("text", "key", "near"), UNKNOWN, ids=[key for _, key, _ in UNKNOWN])
def test_unknown_keys_are_named_with_the_nearest(text: str, key: str, near: str) -> None:
    with pytest.raises(RequestError, match=rf"^here: unknown key '{re.escape(key)}': did you mean '{near}'\? Known: "):
        parse_sweep(document(text), "here")


def sections(model: type[BaseModel], where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield every section of the file with its place; a list contributes its first entry, a mapping an entry 'x'."""
    yield where, model
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        steps: tuple[str, ...] = ()
        while not isinstance(kind, type) and getattr(kind, "__args__", None):
            origin = getattr(kind, "__origin__", None)
            steps += ("0",) if origin is list else ("x",) if origin is dict else ()
            kind = next((a for a in kind.__args__ if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from sections(kind, (*where, name, *steps))


SECTIONS = [item for item in sections(SweepFile) if item[0] != ("grid",)]


def nested(where: tuple[str, ...], value: Any) -> Any:
    for part in reversed(where):
        value = [value] if part == "0" else {part: value}
    return value


@pytest.mark.parametrize(("where", "model"), SECTIONS, ids=[".".join(where) or "file" for where, _ in SECTIONS])
def test_every_section_is_closed_and_lists_its_keys(where: tuple[str, ...], model: type[BaseModel]) -> None:
    changes = nested((*where, "zzzz"), 1)
    made = {**MINIMAL, **changes}
    made["grid"] = {**MINIMAL["grid"], **changes.get("grid", {})}
    known = sorted([*model.model_fields, *(["profiles"] if not where else [])])
    key = re.escape(".".join((*where, "zzzz")))
    with pytest.raises(RequestError, match=rf"unknown key '{key}': (did you mean .+\? )?Known: {', '.join(known)}$"):
        parse_sweep(made, "here")


def test_the_walk_above_reaches_every_section() -> None:
    places = {".".join(where) for where, _ in SECTIONS}
    assert places == {
        *("", "data", "grid.noise.0", "search", "search.space.x", "evaluate", "evaluate.full", "experts", "budget"),
        *("extractor", "cleaner", "model", "resources", "stopper"),
    }


def test_every_wrong_key_is_reported_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        parse_sweep(document("{data: {nmae: a}, budget: {expert: 1}}"), "here")
    assert [line.split(": did")[0] for line in str(caught.value).splitlines()] == [
        "here: unknown key 'data.nmae'",
        "here: unknown key 'budget.expert'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a/b", r"name: String should match pattern '.*', but got 'a/b'"),
        ("name: 3", "name: Input should be a valid string, but got 3"),
        ("grid: {method: []}", r"grid\.method: List should have at least 1 item .*, but got \[\]"),
        ("grid: {method: datm}", r"grid\.method: Input should be a valid list, but got 'datm'"),
        ("grid: {method: [full], ipc: 1}", r"grid\.ipc: Input should be a valid list, but got 1"),
        ("grid: {method: [full], ipc: [1.5]}", r"grid\.ipc\.0: .*fractional part, but got 1\.5"),
        ("grid: {method: [full], noise: []}", r"grid\.noise: List should have at least 1 item"),
        ("grid: {method: [full], noise: [{rate: x}]}", r"grid\.noise\.0\.rate: .*valid number.*, but got 'x'"),
        ("grid: {method: [full], noise: [{rate: [0.1, x]}]}", r"grid\.noise\.0\.rate\.1: .*number.*, but got 'x'"),
        ("data: {val_fraction: much}", r"data\.val_fraction: .*valid number.*, but got 'much'"),
        ("data: {subset: 1.5}", r"data\.subset: .*fractional part, but got 1\.5"),
        ("data: {zca: 5}", r"data\.zca\.bool: .*boolean.*, but got 5"),
        ("data: []", r"data: Input should be a valid dictionary.*, but got \[\]"),
        ("search: {trials: 0}", r"search\.trials: .*greater than or equal to 1, but got 0"),
        ("search: {parallel: 0}", r"search\.parallel: .*greater than or equal to 1, but got 0"),
        ("search: {select_on: tset}", r"search\.select_on: .*'val_noisy', 'val_clean' or 'test', but got 'tset'"),
        ("search: {sampler: grid}", r"search\.sampler: Input should be 'tpe' or 'random', but got 'grid'"),
        ("evaluate: {repeats: 0}", r"evaluate\.repeats: .*greater than or equal to 1, but got 0"),
        ("experts: {dtype: int8}", r"experts\.dtype: .*'float32', 'bfloat16' or 'float16', but got 'int8'"),
        ("experts: {at_once: 0}", r"experts\.at_once: .*greater than or equal to 1, but got 0"),
        ("budget: {iterations: 0}", r"budget\.iterations: .*greater than or equal to 1, but got 0"),
        ("budget: {trial_seconds: 0}", r"budget\.trial_seconds: .*greater than 0, but got 0"),
        ("budget: {cell_seconds: -5}", r"budget\.cell_seconds: .*greater than 0, but got -5"),
        ("budget: {sweep_seconds: 0}", r"budget\.sweep_seconds: .*greater than 0, but got 0"),
        ("budget: {sweep_second: 5}", r"unknown key 'budget\.sweep_second': did you mean 'sweep_seconds'\?"),
        ("resources: {max_concurrent: 0}", r"resources\.max_concurrent: .*equal to 1, but got 0"),
        ("resources: {cpu: 0}", r"resources\.cpu: .*greater than 0, but got 0"),
        ("resources: {gpu: -1}", r"resources\.gpu: .*greater than or equal to 0, but got -1"),
        ("stopper: {kind: hyperband, grace: 1}", r"stopper\.kind: Input should be 'asha', but got 'hyperband'"),
        ("stopper: {kind: asha}", r"the key 'stopper\.grace' is missing"),
        ("stopper: {kind: asha, grace: 1, reduction_factor: 1}", r"stopper\.reduction_factor: .* 2, but got 1"),
        ("params: [1]", r"params: Input should be a valid dictionary, but got \[1\]"),
    ],
)
def test_wrong_values_are_named_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=rf"(?m)^here: {message}"):
        parse_sweep(document(text), "here")


@pytest.mark.parametrize("key", ["name", "grid"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(RequestError, match=rf"^here: the key '{key}' is missing$"):
        parse_sweep({name: value for name, value in MINIMAL.items() if name != key}, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"exactly one of uniform, log_uniform, int_uniform, choice, but got \[\]$"),
        ("{uniform: [0, 1], choice: [2]}", r"exactly one of .*, but got \['uniform', 'choice'\]$"),
        ("{uniform: [1, 1]}", r"uniform needs low < high, but got \[1\.0, 1\.0\]$"),
        ("{int_uniform: [3, 2]}", r"int_uniform needs low < high, but got \[3, 2\]$"),
        ("{log_uniform: [0, 1]}", r"log_uniform needs low > 0, but got 0\.0$"),
        ("{choice: []}", "choice needs at least one value$"),
        ("{int_uniform: [0.5, 2]}", r"int_uniform\.0: .*fractional part, but got 0\.5"),
        ("{uniform: [1]}", r"\.uniform\.1' is missing"),
        ("3", "valid dictionary or instance of SpaceSection, but got 3$"),
    ],
)
def test_ranges_are_checked(sweep: Read, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=rf"search\.space\.datm\.lr_img.*{message}"):
        sweep(f"search.space.datm.lr_img={text}")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "dtm",
            r"unknown method 'dtm': did you mean 'datm'\? Known: accdd, att, dance, datm, dm, dsa, ftd, full, idm, "
            r"mtt, random, rcig, tesla; mtt, ftd, att, tesla, datm also with \+tad, \+sgr, \+tiat, \+sgr\+tiat, \+rdc; "
            r"idm, accdd also with \+rdc; the first also on cleaned labels, CLEANER>METHOD, with the cleaners "
            r"dividemix, c2d, l2b, coteaching, confident, lossmix, knn$",
        ),
        ("random+tad", r"unknown method 'random\+tad': did you mean "),
        ("datm+tiat+sgr", r"unknown method 'datm\+tiat\+sgr': did you mean 'datm\+tiat'\? Known: "),
        ("dividemx>datm", r"unknown cleaner 'dividemx' in method 'dividemx>datm': did you mean 'dividemix'\? Known: "),
        ("dividemix>detm", r"unknown method 'detm' in 'dividemix>detm': did you mean 'datm'\? Known: "),
        ("knn>lossmix>datm", r"'knn>lossmix>datm' has 3 stages, but labels are cleaned once: .*'dividemix>datm'"),
        (
            "dividemix>datm+tad",
            r"datm\+tad decides itself which labels to trust, .*use dividemix>datm, or datm\+tad alone",
        ),
        ("+tad>datm", r"unknown cleaner '\+tad'"),
    ],
)
def test_unknown_methods_are_named_with_the_nearest(sweep: Read, method: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        sweep(f"grid.method=[full, {method}]")


@pytest.mark.parametrize(
    "key", ["model.name=convnt3", "evaluate.networks=[convnet1, convnt3]", "cleaner.network=convnt3"]
)
def test_unknown_networks_are_named_with_the_nearest(sweep: Read, key: str) -> None:
    with pytest.raises(RequestError, match=r"unknown network 'convnt3': did you mean 'convnet3'\? Known: convnet1, "):
        sweep(key)


def test_a_profile_merges_mappings_and_replaces_lists(sweep: Read) -> None:
    plain, wide = sweep(), sweep(profile="wide")
    assert wide.model.name == plain.model.name == "convnet1"
    assert (plain.model.width, wide.model.width) == (4, 8)
    assert (plain.grid.ipc, wide.grid.ipc) == ([1], [1, 2])
    assert wide.grid.method == plain.grid.method
    assert wide.model_copy(update={"model": plain.model, "grid": plain.grid}) == plain


def test_overrides_come_after_the_profile(sweep: Read) -> None:
    assert sweep("model.width=2", profile="wide").model.width == 2
    assert sweep("model.width=2", "model.width=3").model.width == 3


def test_a_profile_may_change_the_kind_of_a_range(sweep: Read, sweep_file: Path) -> None:
    """A range has exactly one key, so merging two would never be valid."""
    sweep_file.write_text(sweep_file.read_text() + "  other: {search: {space: {datm.lr_img: {choice: [1, 2]}}}}\n")
    space = sweep(profile="other").search.space
    assert space["datm.lr_img"].choice == [1, 2]
    assert space["datm.lr_img"].log_uniform is None


def test_an_empty_mapping_empties(sweep: Read) -> None:
    assert sweep("search.space={}").search.space == {}
    assert sweep("params={}").params == {}


def test_unknown_profiles_are_named_with_the_nearest(sweep: Read, sweep_file: Path) -> None:
    with pytest.raises(
        RequestError, match=rf"^unknown profile 'wid' in {sweep_file}: did you mean 'wide'\? Known: wide$"
    ):
        sweep(profile="wid")
    sweep_file.write_text("name: x\ngrid: {method: [full]}\n")
    with pytest.raises(RequestError, match=r"unknown profile 'wide' in .*: this file has none"):
        sweep(profile="wide")


@pytest.mark.parametrize("profiles", ["3", "[wide]", "{wide: 3}", "{wide: [1]}"])
def test_profiles_must_be_mappings(sweep: Read, sweep_file: Path, profiles: str) -> None:
    sweep_file.write_text(f"name: x\ngrid: {{method: [full]}}\nprofiles: {profiles}\n")
    with pytest.raises(RequestError, match="profiles must map each name to a mapping of changes, but got "):
        sweep(profile="wide")


def test_a_wrong_key_in_a_profile_is_an_error_once_it_is_applied(sweep: Read, sweep_file: Path) -> None:
    sweep_file.write_text(sweep_file.read_text() + "  bad: {budgt: {experts: 1}}\n")
    sweep()
    with pytest.raises(RequestError, match=r"unknown key 'budgt': did you mean 'budget'\?"):
        sweep(profile="bad")


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("name=other", ("name",), "other"),
        ("budget.iterations=100", ("budget", "iterations"), 100),
        ("evaluate.full.epochs=7", ("evaluate", "full", "epochs"), 7),
        ("data.root=~/data", ("data", "root"), "~/data"),
        ("data.zca=true", ("data", "zca"), True),
        ("model.width=null", ("model", "width"), None),
        ("grid.ipc=[1,2]", ("grid", "ipc"), [1, 2]),
        ("grid.method=[full]", ("grid", "method"), ["full"]),
        ("params.datm.lr_y=3", ("params", "datm.lr_y"), 3),
        ("params.datm.lr_lr=1e-4", ("params", "datm.lr_lr"), 1e-4),
        ("params.datm.lr_lr=1.5E3", ("params", "datm.lr_lr"), 1500.0),
        ("params={datm.lr_y: 2e+1}", ("params", "datm.lr_y"), 20.0),
        ("params.datm.pix_init=real", ("params", "datm.pix_init"), "real"),
        ("params.datm.batch_syn=", ("params", "datm.batch_syn"), None),
        ("experts.lr=1e-3", ("experts", "lr"), 1e-3),
    ],
)
def test_overrides_are_read_as_yaml(sweep: Read, override: str, where: tuple[str, ...], value: Any) -> None:
    found: Any = sweep(override).model_dump()
    for part in where:
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_overrides_keep_the_dots_of_parameters(sweep: Read) -> None:
    read = sweep(
        "grid.datm.lr_y=[1, 2]", "search.space.datm.lr_img={uniform: [1, 2]}", "search.space.mtt.lr_lr={choice: [1e-5]}"
    )
    assert read.grid.parameters == {"datm.lr_y": [1, 2]}
    assert read.search.space["datm.lr_img"].uniform == (1.0, 2.0)
    assert read.search.space["mtt.lr_lr"].choice == [1e-5]


def test_an_override_adds_to_a_mapping_and_replaces_a_list(sweep: Read) -> None:
    read = sweep("params.datm.lr_y=3", "grid.noise=[{kind: pairflip, rate: 0.1}]")
    assert read.params == {**sweep().params, "datm.lr_y": 3}
    assert [noise.kind for noise in read.grid.noise] == ["pairflip"]


@pytest.mark.parametrize("override", ["budget", "=3", ""])
def test_overrides_need_a_key_and_a_value(sweep: Read, override: str) -> None:
    with pytest.raises(RequestError, match=rf"--set needs key=value, but got '{override}'; for example --set budget"):
        sweep(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.ipc=[1", r"^--set grid\.ipc: '\[1' is not a YAML value$"),
        ("budgt.iterations=3", r"unknown key 'budgt': did you mean 'budget'\?"),
        ("budget.iteration=3", r"unknown key 'budget\.iteration': did you mean 'iterations'\?"),
        ("budget=3", "budget: Input should be a valid dictionary"),
    ],
)
def test_wrong_overrides_are_named(sweep: Read, override: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        sweep(override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [1", "is not valid YAML: while parsing a flow sequence .*line 1"),
        ("name: !!python/object:os.system x", "is not valid YAML: could not determine a constructor"),
        ("- 1", "must hold a mapping with the keys name, data, grid, params, "),
        ("", "must hold a mapping with the keys name, "),
    ],
)
def test_files_that_are_no_mapping(sweep_file: Path, text: str, message: str) -> None:
    sweep_file.write_text(text)
    with pytest.raises(RequestError, match=rf"^{sweep_file} {message}"):
        read_sweep(sweep_file)


def test_files_that_are_no_text(sweep_file: Path) -> None:
    sweep_file.write_bytes(b"name: \xff\xfe\x00")
    with pytest.raises(RequestError, match=rf"^{sweep_file} is not valid YAML: "):
        read_sweep(sweep_file)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=r"^sweep file .* does not exist; `sweeps/` holds the ones that ship"):
        read_sweep(tmp_path / name)


def test_a_sweep_file_survives_being_written_and_read(sweep: Read, sweep_file: Path) -> None:
    """The run folder keeps the sweep as resolved; it must say the same."""
    read = sweep(
        "params.datm.lr_lr=1e-5",
        "params.datm.batch_syn=null",
        "search.space.datm.lr_y={log_uniform: [1e-3, 1]}",
        "grid.datm.threshold=[1e-1, 2]",
    )
    sweep_file.write_text(yaml.safe_dump(read.model_dump(exclude_none=True, mode="json")))
    assert read_sweep(sweep_file) == read


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid_in_every_profile(path: Path) -> None:
    profiles = yaml.safe_load(path.read_text()).get("profiles", {})
    for profile in (None, *profiles):
        read_sweep(path, profile)
