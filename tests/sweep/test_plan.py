"""The plan: which cells a sweep has, how they are named, and what is refused before any compute."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddnl_ray.errors import DataError, RequestError
from ddnl_ray.models import NetworkSpec
from ddnl_ray.noise import NoiseConfig
from ddnl_ray.robust import compose
from ddnl_ray.sweep.needs import needs
from ddnl_ray.sweep.plan import Cell, Plan, make_plan
from ddnl_ray.sweep.read import read_sweep

MakePlan = Callable[..., Plan]


def names(plan: Plan) -> list[str]:
    return [cell.name for cell in plan.cells]


def slugs(plan: Plan) -> list[str]:
    """Names without the hash."""
    return [cell.name.rsplit("-", 1)[0] for cell in plan.cells]


def only(plan: Plan, method: str) -> Cell:
    (cell,) = [cell for cell in plan.cells if cell.config.method == method]
    return cell


def test_every_combination_is_a_cell(plan: MakePlan) -> None:
    made = plan("grid.ipc=[1, 2]", "grid.noise_seed=[0, 1]", "grid.seed=[0, 1]")
    learners = {
        f"{noise}_{method}_ipc{ipc}_n{noise_seed}_s{seed}"
        for noise, method, ipc, noise_seed, seed in itertools.product(
            ["none", "symmetric-0.4"], ["random", "datm"], [1, 2], [0, 1], [0, 1]
        )
    }
    full = {
        f"{noise}_full_n{noise_seed}_s0" for noise, noise_seed in itertools.product(["none", "symmetric-0.4"], [0, 1])
    }
    assert set(slugs(made)) == learners | full
    assert len(set(names(made))) == len(made.cells) == 36


def test_a_cell_is_what_its_name_says(plan: MakePlan) -> None:
    for cell in plan("grid.ipc=[1, 2]", "grid.noise_seed=[3, 5]").cells:
        config = cell.config
        size = [f"ipc{config.ipc}"] if config.ipc else []
        parts = [config.noise.slug(), config.method, *size, f"n{config.noise_seed}", f"s{config.seed}"]
        assert cell.name.rsplit("-", 1)[0] == "_".join(parts)


def test_full_runs_once_per_noise_draw(plan: MakePlan) -> None:
    made = plan("grid.method=[full]", "params={}", "search.space={}", "grid.ipc=[1, 2, 3]", "grid.seed=[4, 5]")
    assert slugs(made) == ["none_full_n0_s4", "symmetric-0.4_full_n0_s4"]
    assert [cell.config.ipc for cell in made.cells] == [None, None]


def test_a_rate_of_zero_is_no_noise(plan: MakePlan) -> None:
    noise = "[{kind: symmetric, rate: [0, 0.2]}, {kind: pairflip, rate: [0, 0.2]}, {kind: none}]"
    made = plan(f"grid.noise={noise}", "grid.method=[full]", "params={}", "search.space={}")
    assert slugs(made) == ["none_full_n0_s0", "symmetric-0.2_full_n0_s0", "pairflip-0.2_full_n0_s0"]
    assert made.cells[0].config.noise == NoiseConfig()
    labels = made.labels[made.cells[0].labels_key]
    assert labels.clean is not None
    assert torch.equal(labels.labels, labels.clean)


def test_a_dotted_axis_multiplies_the_cells_of_its_method_alone(plan: MakePlan) -> None:
    made = plan("params={datm.syn_steps: 2}", "grid.datm.lr_y=[1, 2]", "grid.datm.momentum_y=[0.5]")
    assert slugs(made)[:4] == [
        "none_full_n0_s0",
        "none_random_ipc1_n0_s0",
        "none_datm_ipc1_lr_y=1_momentum_y=0.5_n0_s0",
        "none_datm_ipc1_lr_y=2_momentum_y=0.5_n0_s0",
    ]
    assert [cell.config.params.get("lr_y") for cell in made.cells[:4]] == [None, None, 1, 2]
    assert len(made.cells) == 8


def test_cells_that_search_nothing_have_one_trial(plan: MakePlan) -> None:
    made = plan("search.trials=7")
    assert {cell.config.method: cell.trials for cell in made.cells} == {"full": 1, "random": 1, "datm": 7}
    assert made.num_trials == 2 * (1 + 1 + 7)


@pytest.mark.parametrize(
    "extension",
    [
        "grid.noise=[{kind: symmetric, rate: [0, 0.2, 0.4]}]",
        "grid.noise=[{kind: symmetric, rate: [0, 0.4]}, {kind: pairflip, rate: 0.3}]",
        "grid.noise_seed=[0, 1]",
        "grid.seed=[0, 1]",
        "grid.ipc=[1, 2]",
        "grid.method=[full, random, datm, mtt]; params.mtt.max_start_epoch=1; params.mtt.expert_epochs=1",
        "search.trials=9",
        "name=other",
        "budget.trial_seconds=100",
        "budget.cell_seconds=100",
        "budget.sweep_seconds=100",
        "resources.max_concurrent=3",
        "budget.checkpoint_seconds=1",
        "budget.graph_memory_mb=0",
        "resources.cpu=2",
    ],
)
def test_an_extension_keeps_the_names_of_the_cells_that_were_there(plan: MakePlan, extension: str) -> None:
    assert set(names(plan())) <= set(names(plan(*extension.split("; "))))


@pytest.mark.parametrize(
    "change",
    [
        "params.datm.lr_y=3",
        "search.space={datm.lr_img: {log_uniform: [3, 101]}}",
        "search.sampler=random",
        "search.parallel=3",
        "search.select_on=test",
        "stopper={kind: asha, grace: 1}",
        "evaluate.repeats=3",
        "evaluate.networks=[convnet2]",
        "evaluate.lr=0.1",
        "evaluate.cutmix=0.5",
        "evaluate.schedule=thirds",
        "budget.experts=3",
        "budget.expert_epochs=4",
        "budget.iterations=4",
        "budget.eval_epochs=6",
        "budget.eval_every=1",
        "experts.lr=0.1",
        "experts.seed=1",
        "experts.dtype=bfloat16",
        "experts.precision=bfloat16",
        "experts.cutmix=0.5",
        "experts={schedule: thirds, schedule_epochs: 3}",
        "model.width=5",
        "data.subset=399",
        "data.val_fraction=0.2",
        "data.split_seed=1",
        "data.zca=true",
        "grid.ipc=[2]",
        "grid.seed=[1]",
        "grid.noise_seed=[1]",
    ],
)
def test_what_changes_a_result_changes_the_names(plan: MakePlan, change: str) -> None:
    datm = {cell.name for cell in plan().cells if cell.config.method == "datm"}
    assert not datm & set(names(plan(change)))


def test_how_many_experts_train_at_once_changes_no_name(plan: MakePlan) -> None:
    assert names(plan("experts.at_once=3")) == names(plan())


def test_a_change_leaves_the_names_of_cells_that_it_does_not_touch(plan: MakePlan) -> None:
    before, after = set(names(plan())), set(names(plan("params.datm.lr_y=3", "budget.experts=3")))
    assert {name for name in before if "_datm_" not in name} <= after


def test_the_file_is_laid_over_the_recipe(plan: MakePlan) -> None:
    cell = only(
        plan(
            "grid.noise=[{kind: none}]",
            "grid.method=[datm]",
            "params.datm.lr_y=3",
            "evaluate.networks=[convnet1, convnet2]",
            "evaluate.momentum=0.5",
            "experts.batch_size=7",
            "experts.seed=9",
            "experts.dtype=float16",
            "experts={cutmix: 0.5, schedule: thirds, schedule_epochs: 9}",
            "evaluate={cutmix: 0.25, schedule: thirds}",
        ),
        "datm",
    )
    config = cell.config
    assert config.params["lr_y"] == 3
    assert config.params["lr_lr"] == 1e-4  # the recipe's
    assert config.params["iterations"] == 3
    assert config.network == NetworkSpec("convnet1", 4)
    assert config.eval_networks == (NetworkSpec("convnet1", 4), NetworkSpec("convnet2"))
    assert (config.evaluation.epochs, config.evaluation.momentum, config.evaluation.batch_size) == (5, 0.5, 128)
    assert config.experts is not None
    assert (config.experts.network, config.experts.epochs, config.experts.batch_size) == (config.network, 3, 7)
    assert config.experts.optimizer == "gsam"  # the recipe's
    assert (config.experts.cutmix, config.experts.schedule, config.experts.schedule_epochs) == (0.5, "thirds", 9)
    assert (config.evaluation.cutmix, config.evaluation.schedule) == (0.25, "thirds")
    assert (config.num_experts, config.expert_seed, config.expert_dtype) == (2, 9, "float16")
    assert (config.repeats, config.select_on) == (2, "val_noisy")


def test_full_has_settings_of_its_own(plan: MakePlan) -> None:
    config = only(plan("grid.noise=[{kind: none}]", "evaluate.full.repeats=4", "evaluate.lr=0.3"), "full").config
    assert (config.evaluation.epochs, config.evaluation.checkpoints) == (2, 2)  # scored at every epoch
    assert (config.repeats, config.evaluation.lr) == (4, 0.02)
    config = only(
        plan("grid.noise=[{kind: none}]", "evaluate.full={epochs: 9, checkpoints: 3, lr: 0.3}"), "full"
    ).config
    assert (config.evaluation.epochs, config.evaluation.checkpoints, config.evaluation.lr) == (9, 3, 0.3)


def test_a_methods_own_iterations_win_over_the_budget(plan: MakePlan) -> None:
    mtt = ("params.mtt.max_start_epoch=1", "params.mtt.expert_epochs=1")
    made = plan("grid.method=[datm, mtt]", "params.datm.iterations=8", *mtt)
    assert {cell.config.method: cell.config.params["iterations"] for cell in made.cells} == {"datm": 8, "mtt": 3}


def test_cells_of_one_noise_draw_share_their_experts(plan: MakePlan) -> None:
    made = plan("grid.ipc=[1, 2]", "grid.noise_seed=[0, 1]", "grid.noise=[{kind: symmetric, rate: 0.4}]")
    keys: dict[int, set[str]] = {}
    for cell in made.cells:
        preparation = made.preparation(cell)
        assert (preparation is None) == (cell.config.method != "datm")
        if preparation is not None:
            keys.setdefault(cell.config.noise_seed, set()).add(preparation.experts.key)
    assert [len(own) for own in keys.values()] == [1, 1]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("fixed", "space", "last"),
    [
        ("max_start_epoch: 2, datm.expert_epochs: 1", "lr_img: {log_uniform: [3, 100]}", 2),
        ("expert_epochs: 1", "max_start_epoch: {int_uniform: [1, 3]}", 3),
        ("max_start_epoch: 2", "expert_epochs: {choice: [1, 2]}", 3),
        ("lr_y: 1", "max_start_epoch: {choice: [2, 1]}, datm.expert_epochs: {int_uniform: [1, 2]}", 3),
    ],
)
def test_the_last_epoch_is_what_any_trial_of_the_study_can_read(
    plan: MakePlan, fixed: str, space: str, last: int
) -> None:
    params = f"params={{datm.current_max_start_epoch: 1, datm.{fixed}}}"
    made = plan("grid.noise=[{kind: none}]", "params={}", params, "search.space={}", f"search.space={{datm.{space}}}")
    assert only(made, "datm").last_epoch == last


def test_a_window_must_lie_in_the_training_of_the_recipe(plan: MakePlan) -> None:
    """Also for a method that does not read the end of it."""
    mtt = ("grid.method=[mtt]", "search.space={}", "params={}", "params={mtt.max_start_epoch: 3, mtt.expert_epochs: 1}")
    made = plan(*mtt, "budget.expert_epochs=3")
    assert {cell.last_epoch for cell in made.cells} == {3}
    assert {need.epochs for need in needs(made, made.cells).values()} == {(0, 1, 2, 3)}
    with pytest.raises(RequestError, match=r"mtt reads experts up to epoch 3 .* but they train for 2"):
        plan(*mtt, "budget.expert_epochs=2")
    longer = plan("grid.noise=[{kind: none}]", "budget.expert_epochs=5")
    assert {need.epochs[-1] for need in needs(longer, longer.cells).values()} == {5}


def test_unknown_grid_keys_are_named_with_the_nearest(plan: MakePlan) -> None:
    with pytest.raises(
        RequestError, match=r"^grid\.ipcs: unknown key: did you mean 'ipc'\? Known: datm\.batch_syn, .*seed$"
    ):
        plan("grid.ipcs=[1]")


@pytest.mark.parametrize(
    "place", ["params.datm.lr_im=3", "grid.datm.lr_im=[3]", "search.space.datm.lr_im={choice: [3]}"]
)
def test_parameters_of_no_chosen_method_are_named_with_the_nearest(plan: MakePlan, place: str) -> None:
    where = place.partition(".datm")[0].replace(".", r"\.")
    message = rf"^{where}\.datm\.lr_im: no chosen method has it: did you mean 'datm\.lr_img'\? Known: datm\.batch_syn, "
    with pytest.raises(RequestError, match=message):
        plan(place)


def test_a_parameter_of_a_method_that_is_not_chosen(plan: MakePlan) -> None:
    with pytest.raises(
        RequestError, match=r"^params\.mtt\.lr_img: no chosen method has it: did you mean 'datm\.lr_img'"
    ):
        plan("params.mtt.lr_img=3")
    with pytest.raises(
        RequestError, match=r"^params\.datm\.\w+: no chosen method has it: the chosen methods have none$"
    ):
        plan("grid.method=[full, random]")


@pytest.mark.parametrize(
    ("override", "places"),
    [
        ("params.datm.lr_img=3", "params and in search.space"),
        ("grid.datm.lr_img=[3]", "search.space and in grid"),
        ("grid.datm.syn_steps=[3]", "params and in grid"),
    ],
)
def test_a_parameter_has_one_place(plan: MakePlan, override: str, places: str) -> None:
    with pytest.raises(RequestError, match=rf"^datm\.\w+ is set in {places}; keep one of them$"):
        plan(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.datm.lr_y=3", r"^grid\.datm\.lr_y needs a list of values, but got 3$"),
        ("grid.datm.lr_y=[]", r"^grid\.datm\.lr_y needs a list of values, but got \[\]$"),
        ("params.datm.lr_y=abc", r"^datm\.lr_y: Input should be a valid number, but got 'abc'$"),
        ("params.datm.lr_y=true", r"^datm\.lr_y: Input should be a valid number, but got True$"),
        ("params.datm.lr_y=", r"^datm\.lr_y: Input should be a valid number, but got None$"),
        ("params.datm.lr_y=.inf", r"^datm\.lr_y must be finite, but got inf$"),
        ("params.datm.lr_y=.nan", r"^datm\.lr_y must be finite, but got nan$"),
        ("params.datm.iterations=2.5", r"^datm\.iterations: Input should be a valid integer, but got 2\.5$"),
        ("params.datm.pix_init=1", r"^datm\.pix_init: Input should be a valid string, but got 1$"),
        ("params.datm.pix_init=rael", r"^datm in cell none_datm_.*: unknown pix_init 'rael': did you mean 'real'\?"),
        ("params.datm.lr_y=-1", r"^datm in cell none_datm_.*: lr_y must be 0 or more, but got -1$"),
        ("grid.datm.lr_y=[1, -1]", r"^datm in cell none_datm_.*: lr_y must be 0 or more, but got -1$"),
        (
            "search.space.datm.lr_y={uniform: [-1, 1]}",
            r"^search\.space of datm holds .*'lr_y': -1\.0.*, but lr_y must be 0",
        ),
        ("search.space.datm.iterations={uniform: [1, 3]}", r"^datm\.iterations: .*valid integer, but got 1\.0$"),
        (
            "search.space.datm.pix_init={choice: [real, rael]}",
            r"^search\.space of datm holds .*, but unknown pix_init 'rael'",
        ),
        ("search.space.datm.lr_y={choice: [1, x]}", r"^datm\.lr_y: Input should be a valid number, but got 'x'$"),
    ],
)
def test_values_of_parameters_are_checked_before_any_compute(plan: MakePlan, override: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        plan(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.ipc=[0]", r"^grid\.ipc must be at least 1, but got 0$"),
        ("grid.ipc=[1, 99]", r"^grid\.ipc: 99 is larger than class '\d', which has \d\d training images under none "),
        ("grid.noise=[{kind: symmetric, rate: 1}]", r"^noise rate must be in \[0, 1\), but got 1\.0$"),
        ("grid.noise=[{kind: pairflip, rate: [0.1, -0.1]}]", r"^noise rate must be in \[0, 1\), but got -0\.1$"),
        ("grid.noise=[{kind: symetric, rate: 0}]", r"^unknown noise kind 'symetric': did you mean 'symmetric'\?"),
        ("grid.noise=[{kind: symmetric}]", r"^noise of kind symmetric needs rate, as in rate: 0\.4$"),
        ("grid.noise=[{kind: natural, labels: worst}]", r"^unknown label set 'worst': did you mean 'worse'\?"),
        ("grid.noise=[{kind: asymmetric, rate: 0.1}]", "digits"),
        ("data.val_fraction=0", r"^search\.select_on is 'val_noisy', but data\.val_fraction is 0; set it above 0$"),
        ("data.val_fraction=0.6", r"^data\.val_fraction must be in \[0, 0\.5\], but got 0\.6$"),
        (
            "budget.expert_epochs=1",
            r"^datm reads experts up to epoch 2 .*, but they train for 1; raise budget\.expert_ep",
        ),
        ("params.datm.max_start_epoch=4", r"^datm reads experts up to epoch 4 .*, but they train for 3;"),
        ("search.space.datm.max_start_epoch={int_uniform: [1, 9]}", r"is set in params and in search\.space"),
        (
            "model.name=convnet4",
            r"^convnet4 is too deep for images of 8 x 8 pixels; the deepest that fits is convnet3$",
        ),
        ("evaluate.networks=[convnet1, vgg11]", r"^vgg11 needs images of at least 32 x 32 pixels, but got 8 x 8;"),
        ("model.width=0", r"^the width of convnet1 must be at least 1, but got 0$"),
        ("evaluate.epochs=0", r"^evaluate: epochs must be at least 1, but got 0$"),
        ("evaluate.full.lr=0", r"^evaluate: lr must be above 0 or null, but got 0\.0$"),
        ("experts.precision=half", r"^unknown expert precision 'half': Known: bfloat16, float32, tf32$"),
        ("experts.optimizer=adam", r"^unknown expert optimizer 'adam': did you mean 'gsam'\? Known: gsam, sgd$"),
        ("experts.schedule=thirds", r"^experts: the schedule 'thirds' needs its length; set schedule_epochs"),
        ("evaluate.cutmix=2", r"^cutmix is a probability and must lie in \[0, 1\], but got 2\.0; published: 0\.5$"),
        ("data.subset=5000", r"^data\.subset must be at most the 1437 images that there are, but got 5000$"),
    ],
)
def test_wrong_requests_are_refused(plan: MakePlan, override: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        plan(override)


def test_the_size_of_a_class_is_counted_under_its_noise(plan: MakePlan) -> None:
    """Noise moves labels from class to class; what counts is the observed ones that are left to fit on."""
    made = plan("grid.noise=[{kind: symmetric, rate: 0.4}]", "grid.method=[random]", "params={}", "search.space={}")
    labels = made.labels[made.cells[0].labels_key].labels[made.data[False].train_index]
    smallest = int(torch.bincount(labels, minlength=10).min())
    setting = ["grid.noise=[{kind: symmetric, rate: 0.4}]", "grid.method=[random]", "params={}", "search.space={}"]
    plan(*setting, f"grid.ipc=[{smallest}]")
    with pytest.raises(
        RequestError, match=rf"which has {smallest} training images under symmetric-0\.4 \(noise_seed 0\)"
    ):
        plan(*setting, f"grid.ipc=[{smallest + 1}]")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{name: cifar10, root: NOWHERE}", "^cifar10 is not there: looked for .*nowhere/cifar-10-batches-py"),
        ("{name: 'folder:NOWHERE', size: 8}", "^no folder at .*nowhere; "),
        ("{name: 'parquet:NOWHERE', size: 8}", "nowhere"),
        ("{name: digit}", r"^unknown data set 'digit': did you mean 'digits'\? Known: cifar10, "),
        ("{name: digits, labels: NOWHERE}", "nowhere"),
    ],
)
def test_missing_data_are_named(plan: MakePlan, tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        plan("data.subset=", f"data={data.replace('NOWHERE', str(tmp_path / 'nowhere'))}", "data.test_subset=")
    assert "unknown data set" in str(caught.value) or isinstance(caught.value, DataError)


def test_true_labels_cannot_choose_where_nobody_knows_them(plan: MakePlan, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("index,label\n" + "".join(f"{index},{index % 10}\n" for index in range(1437)))
    setting = [
        f"data.labels={labels}",
        "grid.noise=[{kind: none}]",
        "grid.method=[random]",
        "params={}",
        "search.space={}",
    ]
    plan(*setting)
    with pytest.raises(
        RequestError, match=r"^search\.select_on is 'val_clean', but the true labels are unknown; use val_noisy$"
    ):
        plan(*setting, "search.select_on=val_clean")


def test_a_plan_draws_from_no_global_generator(sweep_file: Path, global_random_untouched: Callable[..., Any]) -> None:
    with global_random_untouched(3):
        make_plan(read_sweep(sweep_file))


def test_cells_are_frozen(plan: MakePlan) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan().cells[0].trials = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("method", "space", "itself"),
    [
        ("idm+rdc", "rdc.warm_up: {choice: [1, 2]}, rdc.gmc_weight: {choice: [0.1, 1.0]}", False),
        ("mtt+rdc", "rdc.gmc_weight: {choice: [0.1, 1.0]}, rdc.temperature: {choice: [0.1, 0.2]}", False),
        ("mtt+rdc", "mtt.lr_img: {choice: [1.0, 2.0]}, rdc.gmc: {choice: [paper, supcon]}", False),
        ("mtt+rdc", "rdc.warm_up: {choice: [1, 2]}", True),
        ("datm+rdc", "rdc.gmc_weight: {choice: [0.1, 1.0]}, rdc.unlabelled_weight: {choice: [0.0, 25.0]}", True),
        ("datm+tiat", "tiat.beta: {choice: [0.1, 0.2]}", False),
        ("datm+tiat", "datm.expert_epochs: {choice: [1, 2]}", True),
    ],
)
def test_a_study_makes_its_own_experts_where_it_searches_what_they_depend_on(
    plan: MakePlan, method: str, space: str, itself: bool
) -> None:
    overrides = ("grid.noise=[{kind: symmetric, rate: 0.4}]", f"grid.method=[{method}]", "params={}")
    wide = ("budget.expert_epochs=60", "search.space={}", f"search.space={{{space}}}")
    (cell,) = plan(*overrides, *wide).cells
    assert cell.prepares_itself is itself


def test_rdc_on_a_trajectory_method_has_a_light_contrast(plan: MakePlan) -> None:
    overrides = ("grid.noise=[{kind: symmetric, rate: 0.4}]", "params={}", "search.space={}")
    made = plan(*overrides, "grid.method=[mtt+rdc, datm+rdc]", "budget.expert_epochs=60")
    for cell in made.cells:
        rdc = compose(cell.config.method).settings(cell.config.params).parts["rdc"]
        assert (rdc.gmc_weight, rdc.warm_up, rdc.labelled_batch, rdc.unlabelled_batch) == (0.1, 8, 64, 64)
        assert (rdc.flip, rdc.unlabelled_weight) == (False, 25.0)
