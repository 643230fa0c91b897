"""Training on a distilled set against a loop whose optimizer is written out, and the choice of the best epoch."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddnl_ray import evaluate
from ddnl_ray.data import CutMix, DiffAug
from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill import Distilled
from ddnl_ray.errors import RequestError
from ddnl_ray.evaluate import EvalRecipe, Split, score, train_and_score
from ddnl_ray.experts.schedule import warm_cosine
from ddnl_ray.models import NetworkSpec, build
from ddnl_ray.models.parts import PART_BYTES
from ddnl_ray.seeds import SeedTree

NETWORK = NetworkSpec("convnet1", 4)
SEED = SeedTree.root(0).child("evaluate", 0)
PLAIN = EvalRecipe(epochs=9, batch_size=4, augment=None)


def blobs(num: int, seed: int, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    """Images of three classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 3
    images = spread * torch.randn(num, 1, 4, 4, generator=generator)
    images[torch.arange(num), 0, labels] += 1.0
    return images, labels


def distilled(soft: bool = False) -> Distilled:
    images, labels = blobs(10, 1)
    if not soft:
        return Distilled(images, labels, 0.05)
    generator = torch.Generator().manual_seed(4)
    return Distilled(images, torch.randn(10, 3, generator=generator).softmax(1), 0.05)


def splits() -> dict[str, Split]:
    return {"test": Split(*blobs(41, 2)), "val_noisy": Split(*blobs(13, 3))}


def hand_written(
    training: Distilled, recipe: EvalRecipe, lr: float, drop_after: int
) -> list[dict[str, tuple[float, float]]]:
    """Accuracy and loss on every split after every epoch; momentum buffers vanish with the drop."""
    model = build(NETWORK, (1, 4, 4), 3, SEED.child("init").torch())
    velocity: list[Tensor | None] = [None for _ in model.parameters()]
    history = []
    for epoch in range(1, recipe.epochs + 1):
        generator = SEED.child("epoch", epoch).torch()
        order = torch.randperm(len(training.images), generator=generator)
        for first in range(0, len(order), recipe.batch_size):
            rows = order[first : first + recipe.batch_size]
            x, y = training.images[rows], training.labels[rows]
            if recipe.augment is not None:
                x = Dsa(recipe.augment)(x, generator)
            log_p = F.log_softmax(model(x), dim=1)
            picked = (y * log_p).sum(1) if y.is_floating_point() else log_p[torch.arange(len(y)), y]
            loss = -picked.mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for place, (weight, gradient) in enumerate(zip(model.parameters(), gradients, strict=True)):
                    decayed = gradient + recipe.weight_decay * weight
                    old = velocity[place]
                    new = decayed if old is None else recipe.momentum * old + decayed
                    velocity[place] = new
                    weight.sub_(lr * new)
        if epoch == drop_after:
            lr, velocity = lr / 10, [None for _ in velocity]
        history.append({name: measured(model, split) for name, split in splits().items()})
    return history


def measured(model: nn.Module, split: Split) -> tuple[float, float]:
    with torch.no_grad():
        logits = model(split.images).double()
    loss = -F.log_softmax(logits, 1)[torch.arange(len(logits)), split.labels].mean()
    return float((logits.argmax(1) == split.labels).double().mean()), float(loss)


def scores(training: Distilled, recipe: EvalRecipe, select_on: str = "val_noisy", seed: SeedTree = SEED) -> Any:
    result = train_and_score(training, recipe, NETWORK, 3, splits(), select_on, seed)
    return {each.split: each for each in result}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("augment", [None, "flip_crop_scale"])
def test_training_equals_a_hand_written_loop(soft: bool, augment: str | None) -> None:
    """Nine epochs, indices 0 to 8: the learning rate drops after the index 8 // 2 + 1, the sixth epoch."""
    recipe = replace(PLAIN, augment=augment, weight_decay=0.01)
    expected = hand_written(distilled(soft), recipe, 0.05, drop_after=6)[-1]
    found = scores(distilled(soft), recipe)
    assert list(found) == ["test", "val_noisy"]
    for name, (accuracy, loss) in expected.items():
        assert found[name].accuracy == pytest.approx(accuracy, abs=1e-9)
        assert found[name].loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("wrong", [5, 7, 99])
def test_the_drop_and_its_epoch_matter(wrong: int) -> None:
    """The oracle of the test above can tell the right epoch of the drop from its neighbours."""
    (_, right), (_, other) = (
        hand_written(distilled(), PLAIN, 0.05, drop_after)[-1]["test"] for drop_after in (6, wrong)
    )
    assert abs(right - other) > 1e-4 * right
    assert scores(distilled(), PLAIN)["test"].loss == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize(("epochs", "drop_epoch"), [(1001, 502), (501, 252), (300, 151), (9, 6), (2, 2), (1, 2)])
def test_the_epoch_of_the_drop(epochs: int, drop_epoch: int) -> None:
    """The published loop runs 0..E and drops after the index E // 2 + 1; for E = 1000 that is the 502nd epoch."""
    assert EvalRecipe(epochs=epochs).drop_epoch == drop_epoch == (epochs - 1) // 2 + 1 + 1


def test_the_recipe_overrides_the_learnt_step_size() -> None:
    learnt, overridden = scores(distilled(), PLAIN), scores(distilled(), replace(PLAIN, lr=0.05))
    assert learnt == overridden
    assert scores(distilled(), replace(PLAIN, lr=0.01)) != learnt
    assert scores(replace(distilled(), step_size=None), replace(PLAIN, lr=0.05)) == learnt


def test_the_best_epoch_is_chosen_on_the_selection_split() -> None:
    """A high learning rate makes accuracy move up and down; the first epoch with the best selection accuracy counts."""
    recipe = replace(PLAIN, epochs=12, checkpoints=12, lr=0.9)
    history = hand_written(distilled(), recipe, 0.9, drop_after=7)
    selection = [epoch["val_noisy"][0] for epoch in history]
    best = selection.index(max(selection))
    test_best = max(epoch["test"][0] for epoch in history)
    assert best + 1 < 12
    assert len({round(history[i]["test"][0], 6) for i in (best, 11)} | {round(test_best, 6)}) == 3
    found = scores(distilled(), recipe)
    for name in ("test", "val_noisy"):
        assert found[name].accuracy_best == pytest.approx(history[best][name][0], abs=1e-9)
        assert found[name].accuracy == pytest.approx(history[-1][name][0], abs=1e-9)
        assert found[name].best_epoch == best + 1
    on_test = scores(distilled(), recipe, select_on="test")
    assert on_test["test"].accuracy_best == pytest.approx(test_best, abs=1e-9)


def test_checkpoints_are_evenly_spaced_and_end_at_the_last_epoch() -> None:
    """12 epochs in 3 looks: after 4, 8 and 12; in 1: after 12; more looks than epochs: after each."""
    history = hand_written(distilled(), replace(PLAIN, epochs=12, lr=0.9), 0.9, drop_after=7)
    selection = [epoch["val_noisy"][0] for epoch in history]
    for checkpoints, marks in ((3, [4, 8, 12]), (1, [12]), (99, list(range(1, 13)))):
        best = max(marks, key=lambda epoch: (selection[epoch - 1], -epoch))
        recipe = replace(PLAIN, epochs=12, checkpoints=checkpoints, lr=0.9)
        assert scores(distilled(), recipe)["test"].best_epoch == best


def test_one_epoch() -> None:
    found = scores(distilled(), replace(PLAIN, epochs=1))
    assert found["test"].best_epoch == 1
    assert found["test"].accuracy == found["test"].accuracy_best


def test_seeds(global_random_untouched: Callable[[int], AbstractContextManager[None]]) -> None:
    recipe, results = replace(PLAIN, augment=EvalRecipe().augment), []
    for poison in (1, 2):
        with global_random_untouched(poison):
            results.append(scores(distilled(), recipe))
    assert results[0] == results[1]
    assert scores(distilled(), recipe, seed=SeedTree.root(1)) != results[0]


def test_the_set_is_left_alone() -> None:
    training = distilled(soft=True)
    before = copy.deepcopy(training)
    scores(training, replace(PLAIN, augment="color"))
    assert torch.equal(training.images, before.images)
    assert torch.equal(training.labels, before.labels)


def test_a_network_that_diverges_is_scored_all_the_same() -> None:
    found = scores(distilled(), replace(PLAIN, lr=1e30))
    assert not math.isfinite(found["test"].loss)
    assert 0 <= found["test"].accuracy <= 1


def test_score_by_hand() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]]).view(3, 2, 1, 1)
    accuracy, loss = score(Fixed(), Split(logits, torch.tensor([0, 0, 0])))
    assert accuracy == pytest.approx(2 / 3)
    assert loss == pytest.approx((math.log(2) + math.log(4 / 3) + math.log(4)) / 3)


def test_scores_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = build(NETWORK, (1, 4, 4), 3, SEED.torch()), splits()["test"]
    whole = score(model, split)
    monkeypatch.setattr("ddnl_ray.evaluate.SCORE_BATCH", 7)
    assert score(model, split) == pytest.approx(whole)
    assert not model.training


def test_no_learning_rate() -> None:
    with pytest.raises(
        RequestError, match=r"evaluate\.lr is null, but the method learns no step size; set evaluate\.lr"
    ):
        scores(replace(distilled(), step_size=None), PLAIN)


def test_an_unknown_selection_split() -> None:
    with pytest.raises(RequestError, match=r"unknown selection split 'val_clean': .*Known: test, val_noisy"):
        scores(distilled(), PLAIN, select_on="val_clean")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "evaluate: epochs must be at least 1, but got 0"),
        ({"batch_size": 0}, "evaluate: batch_size must be at least 1, but got 0"),
        ({"checkpoints": 0}, "evaluate: checkpoints must be at least 1, but got 0"),
        ({"lr": 0.0}, "evaluate: lr must be above 0 or null, but got 0.0"),
        ({"lr": math.nan}, "evaluate: lr must be above 0 or null, but got nan"),
        ({"momentum": 1.0}, r"evaluate: momentum must lie in \[0, 1\), but got 1.0"),
        ({"weight_decay": -1e-3}, "evaluate: weight_decay must be 0 or more, but got -0.001"),
        ({"schedule": "thirts"}, "unknown evaluation schedule 'thirts': did you mean 'thirds'"),
        ({"cutmix": -0.5}, r"cutmix is a probability and must lie in \[0, 1\], but got -0.5"),
        ({"augment": "diffaug:colour"}, "unknown augmentation operation 'colour': did you mean 'color'"),
    ],
)
def test_bad_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        EvalRecipe(**changes)


def test_parts_of_a_batch_add_up_to_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory ran out three times, a batch is taken image by image."""
    monkeypatch.setitem(PART_BYTES, "cpu", 4 * 4 * 16 * 64)
    sizes: list[int] = []

    def watched(*args: Any) -> nn.Module:
        model = build(*args)
        model.register_forward_pre_hook(
            lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None
        )
        return model

    monkeypatch.setattr("ddnl_ray.evaluate.build", watched)
    recipe, scores, taken = replace(PLAIN, batch_size=7), [], []
    for smaller in (0, 3):
        scores.append(train_and_score(distilled(), recipe, NETWORK, 3, splits(), "val_noisy", SEED, smaller))
        taken.append(sizes.copy())
        sizes.clear()
    assert taken == [[7, 3] * recipe.epochs, [1] * 10 * recipe.epochs]
    for one, other in zip(*scores, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


# --- the protocol of the IDC lineage -------------------------------------------------------------------------------

IDC = replace(PLAIN, augment="diffaug:color_crop_flip", cutmix=0.5, schedule="thirds", lr=0.1)


def weights_of(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def with_torch(training: Distilled, recipe: EvalRecipe, lr: float) -> tuple[list[Tensor], nn.Module, int]:
    """Weights before every step with torch's own schedule, the network, and how many batches were mixed.

    A mixed batch has one soft target per image, so this is not the sum of two losses.
    """
    model, mixed = build(NETWORK, (1, 4, 4), 3, SEED.child("init").torch()), 0
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=recipe.weight_decay)
    milestones = [2 * recipe.epochs // 3, 5 * recipe.epochs // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)
    soft = training.labels if training.labels.is_floating_point() else F.one_hot(training.labels, 3).float()
    history = []
    for epoch in range(1, recipe.epochs + 1):
        generator = SEED.child("epoch", epoch).torch()
        order = torch.randperm(len(training.images), generator=generator)
        for rows in order.split(recipe.batch_size):
            x, target = DiffAug("color_crop_flip")(training.images[rows], generator), soft[rows]
            draw = CutMix(recipe.cutmix).draw(generator, len(rows), 4, "cpu") if recipe.cutmix else None
            if draw is not None:
                before, mixed = x.clone(), mixed + 1
                for i, r, c in itertools.product(range(len(rows)), range(*draw.rows), range(*draw.columns)):
                    x[i, :, r, c] = before[draw.order[i], :, r, c]
                target = draw.own * target + (1 - draw.own) * target[draw.order]
            history.append(weights_of(model))
            optimizer.zero_grad()
            (-(target * model(x).log_softmax(1)).sum(1).mean()).backward()
            optimizer.step()
        scheduler.step()
    return history, model, mixed


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights of which a gradient was taken, in order."""
    found: list[Tensor] = []

    def watched(*args: Any) -> nn.Module:
        model = build(*args)
        model.register_forward_pre_hook(
            lambda module, inputs: found.append(weights_of(module)) if module.training else None
        )
        return model

    monkeypatch.setattr("ddnl_ray.evaluate.build", watched)
    return found


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("cutmix", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("epochs", [1, 5, 9])
def test_the_idc_protocol_equals_a_loop_with_torch_schedule(
    visited: list[Tensor], soft: bool, cutmix: float, epochs: int
) -> None:
    """Nine epochs decay after the 6th and the 7th; five after the 3rd and the 4th; one before it begins, twice."""
    recipe = replace(IDC, cutmix=cutmix, epochs=epochs, weight_decay=0.01)
    found = scores(distilled(soft), recipe)
    expected, model, mixed = with_torch(distilled(soft), recipe, 0.1)
    assert len(visited) == len(expected) == 3 * epochs
    for own, other in zip(visited, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-6)
    assert found["test"].loss == pytest.approx(measured(model, splits()["test"])[1], rel=1e-5)
    assert mixed == {0.0: 0, 1.0: 3 * epochs}.get(cutmix, mixed)
    assert epochs < 9 or cutmix != 0.5 or 0 < mixed < 27


def test_parts_of_a_mixed_batch_add_up_to_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores(distilled(True), IDC)["test"]
    monkeypatch.setitem(PART_BYTES, "cpu", 4 * 4 * 16 * 3)
    assert scores(distilled(True), IDC)["test"].loss == pytest.approx(whole.loss, rel=1e-5)


def test_each_part_of_the_idc_protocol_matters() -> None:
    recipes = [IDC, replace(IDC, cutmix=0.0), replace(IDC, schedule="half"), replace(IDC, augment="color_crop_flip")]
    assert len({scores(distilled(), recipe)["test"].loss for recipe in recipes}) == 4


def test_names_from_before_there_was_a_choice_hold() -> None:
    old = {"epochs", "batch_size", "lr", "momentum", "weight_decay", "augment", "checkpoints"}
    assert set(EvalRecipe().identity) == old
    assert EvalRecipe().identity["augment"] == "color_crop_cutout_flip_scale_rotate"
    assert set(replace(IDC, schedule="half").identity) == old | {"cutmix"}
    assert set(IDC.identity) == old | {"cutmix", "schedule"}


def test_a_cosine_rises_in_a_line_and_falls_to_a_hundredth() -> None:
    factors = [warm_cosine(taken, 100, 0.25) for taken in range(100)]
    assert factors[:3] == pytest.approx([0, 0.04, 0.08])
    assert factors[25] == 1
    assert factors[62] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * 37 / 75)) / 2)
    assert factors[99] == pytest.approx(0.01, abs=1e-3)
    assert warm_cosine(0, 10, 0.0) == 1


def test_squared_loss_trains_on_centred_labels_by_adam() -> None:
    """Two epochs on one batch, by hand; hard labels, probabilities and scores that mean the same give the same."""
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 3
    hot = torch.nn.functional.one_hot(labels, 3).float()
    spec = NetworkSpec("doubling2", 3)
    recipe = EvalRecipe(epochs=2, batch_size=99, lr=0.01, weight_decay=0.0, augment=None, schedule="cosine",
                        optimizer="adam", loss="squared")  # fmt: skip
    trained = []
    for training in (
        Distilled(images, labels),
        Distilled(images, hot),
        Distilled(images, hot - 1 / 3, scores=True),
    ):
        trainer = evaluate._Trainer(training, recipe, spec, 3, SeedTree.root(0), 0)
        for epoch in (1, 2):
            trainer.epoch(epoch)
        trained.append(trainer.model(images).detach())
    model = build(spec, (1, 8, 8), 3, SeedTree.root(0).child("init").torch())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for taken in range(2):
        optimizer.param_groups[0]["lr"] = 0.01 * warm_cosine(taken, 2, 0.0)
        optimizer.zero_grad()
        (0.5 * (model(images) - hot + 1 / 3).square().sum() / 18).backward()
        optimizer.step()
    for found in trained:
        torch.testing.assert_close(found, model(images).detach(), rtol=1e-3, atol=1e-5)


def test_scores_need_the_squared_loss() -> None:
    training = Distilled(torch.zeros(3, 1, 8, 8), torch.zeros(3, 3), scores=True)
    with pytest.raises(RequestError, match=r"'cross_entropy' cannot train; set it to 'squared'"):
        evaluate._Trainer(training, EvalRecipe(lr=0.1), NetworkSpec("convnet1", 2), 3, SeedTree.root(0), 0)


def test_mirrored_images_join_with_the_same_labels() -> None:
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = Distilled(images, torch.tensor([0, 1]), mirrored=True).decoded()
    torch.testing.assert_close(found.images, torch.cat([images, images.flip(-1)]))
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.decoded() is found
