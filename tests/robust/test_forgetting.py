"""Second-split forgetting: times of histories worked out by hand, the prior, and training against a loop of torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ddnl_ray.errors import RequestError
from ddnl_ray.models import NetworkSpec, build
from ddnl_ray.robust.forgetting import (
    ForgettingConfig,
    forgetting_history,
    forgetting_prior,
    forgetting_times,
    learning_times,
    stratified_halves,
)
from ddnl_ray.seeds import SeedTree

NETWORK = NetworkSpec("convnet2", 4)
SEED = SeedTree.root(0)
SMALL = ForgettingConfig(
    forgetting_networks=2,
    forgetting_first_epochs=3,
    forgetting_second_epochs=2,
    forgetting_batch_size=4,
    forgetting_weight_decay=0.1,
)

histories = st.integers(1, 6).flatmap(
    lambda epochs: st.lists(st.lists(st.booleans(), min_size=epochs, max_size=epochs), min_size=1, max_size=8)
)


def history(*images: str) -> Tensor:
    """One string per image, one letter per epoch: ``r`` right, ``w`` wrong; bool [epochs, n]."""
    return torch.tensor([[letter == "r" for letter in image] for image in images]).T


def images_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(22, 1, 8, 8, generator=generator), torch.randint(0, 3, (22,), generator=generator)


# --- times -----------------------------------------------------------------------------------------------------------


def test_an_image_is_learnt_in_the_first_epoch_in_which_it_is_right() -> None:
    correct = history("rrrr", "wrwr", "wwwr", "wwww")
    assert learning_times(correct).tolist() == [1, 2, 4, 5]


def test_forgetting_times_by_hand() -> None:
    correct = history("rrrr", "rrrw", "rwrr", "rwrw", "rwww", "wwww", "wrrr")
    right_before = torch.ones(7, dtype=torch.bool)
    assert forgetting_times(correct, right_before, "for_good").tolist() == [5, 4, 5, 4, 2, 1, 5]
    assert forgetting_times(correct, right_before, "first_error").tolist() == [5, 4, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("rule", ["for_good", "first_error"])
def test_an_image_that_was_wrong_before_is_forgotten_at_0_whatever_follows(rule: str) -> None:
    correct = history("rr", "rw", "wr", "ww")
    assert forgetting_times(correct, torch.zeros(4, dtype=torch.bool), rule).tolist() == [0, 0, 0, 0]


@given(histories)
def test_times_equal_a_search_through_the_history(images: list[list[bool]]) -> None:
    correct = torch.tensor(images).T
    epochs = len(correct)
    learnt, good, first = [], [], []
    for image in images:
        learnt.append(next((e + 1 for e in range(epochs) if image[e]), epochs + 1))
        good.append(next((e + 1 for e in range(epochs) if not any(image[e:])), epochs + 1))
        first.append(next((e + 1 for e in range(epochs) if not image[e]), epochs + 1))
    right_before = torch.ones(len(images), dtype=torch.bool)
    assert learning_times(correct).tolist() == learnt
    assert forgetting_times(correct, right_before).tolist() == good
    assert forgetting_times(correct, right_before, "first_error").tolist() == first
    assert all(f <= g for f, g in zip(first, good, strict=True))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(RequestError, match="unknown forgetting_rule 'first_eror': did you mean 'first_error'"):
        forgetting_times(history("r"), torch.ones(1, dtype=torch.bool), "first_eror")


# --- prior -----------------------------------------------------------------------------------------------------------


def test_the_prior_of_a_history_by_hand() -> None:
    """E1 = 4, E2 = 3: learnt at once and never forgotten, in between, and never learnt."""
    t_learn, t_forget = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([4.0, 1.0, 0.0])
    prior = forgetting_prior(t_learn, t_forget, 0.5, 0.05)
    torch.testing.assert_close(prior, torch.tensor([1 - 0.5 / 5, 1 - 0.5 * 3 / 5 - 0.5 * 3 / 4, 0.05]))
    torch.testing.assert_close(forgetting_prior(t_learn, t_forget, 1.0, 0.0), torch.tensor([0.8, 0.4, 0.0]))
    torch.testing.assert_close(forgetting_prior(t_learn, t_forget, 0.0, 0.0), torch.tensor([1.0, 0.25, 0.0]))


@given(
    st.lists(st.tuples(st.integers(1, 31), st.integers(0, 31)), min_size=1, max_size=20),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_the_prior_is_bounded_and_ordered(times: list[tuple[int, int]], weight: float, floor: float) -> None:
    t_learn, t_forget = (torch.tensor(each, dtype=torch.float64) for each in zip(*times, strict=True))
    prior = forgetting_prior(t_learn, t_forget, weight, floor)
    assert bool(((prior >= floor) & (prior <= 1)).all())
    trusted = (t_learn.unsqueeze(1) <= t_learn) & (t_forget.unsqueeze(1) >= t_forget)
    assert bool((prior.unsqueeze(1) >= prior - 1e-12)[trusted].all())


def test_images_that_are_all_forgotten_at_0_have_a_prior() -> None:
    prior = forgetting_prior(torch.tensor([1.0, 2.0]), torch.zeros(2), 0.5, 0.05)
    assert torch.equal(prior, torch.tensor([0.25, 0.05]))


# --- halves ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 5))
def test_halves_share_every_class_and_miss_no_image(labels: list[int], seed: int) -> None:
    given = torch.tensor(labels)
    halves = stratified_halves(given, SeedTree.root(seed))
    assert sorted(torch.cat(halves).tolist()) == list(range(len(labels)))
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    counts = [given[half].bincount(minlength=5) for half in halves]
    assert int((counts[0] - counts[1]).abs().max()) <= 1
    for half in halves:
        assert half.tolist() == sorted(half.tolist())


def test_halves_are_drawn() -> None:
    labels = torch.arange(40) % 4
    first, again, other = (stratified_halves(labels, SeedTree.root(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- training --------------------------------------------------------------------------------------------------------


def reference(config: ForgettingConfig) -> tuple[Tensor, Tensor]:
    """Train modules with ``torch.optim.SGD`` in the order of the seeds, and time what is right after each epoch."""
    x, y = images_and_labels()
    halves = stratified_halves(y, SEED.child("halves"))
    t_learn, t_forget = torch.zeros(len(x)), torch.zeros(len(x))
    for direction, (own, other) in enumerate((halves, halves[::-1])):
        for index in range(config.forgetting_networks):
            seed = SEED.child("network", index, "direction", direction)
            model = build(NETWORK, (1, 8, 8), 3, seed.child("init").torch())
            right: list[Tensor] = []
            stages = ((own, config.forgetting_first_epochs), (other, config.forgetting_second_epochs))
            for rows, num_epochs in stages:
                optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
                for epoch in range(num_epochs):
                    optimizer.param_groups[0]["lr"] = config.lr_at(epoch, num_epochs)
                    order = torch.randperm(len(rows), generator=seed.child("epoch", len(right)).torch())
                    for batch in rows[order].split(config.forgetting_batch_size):
                        optimizer.zero_grad()
                        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                        optimizer.step()
                    with torch.no_grad():
                        right.append(model(x[own]).argmax(1) == y[own])
            first, second = torch.stack(right).split([num for _, num in stages])
            t_learn[own] += learning_times(first) / config.forgetting_networks
            t_forget[own] += forgetting_times(second, first[-1], config.forgetting_rule) / config.forgetting_networks
    return t_learn, t_forget


@pytest.mark.parametrize("rule", ["for_good", "first_error"])
@pytest.mark.parametrize("schedule", ["triangular", "constant"])
def test_the_history_equals_a_loop_of_torch(schedule: str, rule: str) -> None:
    config = replace(SMALL, forgetting_schedule=schedule, forgetting_rule=rule)
    found = forgetting_history(*images_and_labels(), 3, NETWORK, config, SEED)
    t_learn, t_forget = reference(config)
    torch.testing.assert_close(found.t_learn, t_learn)
    torch.testing.assert_close(found.t_forget, t_forget)
    assert len(set(zip(t_learn.tolist(), t_forget.tolist(), strict=True))) > 5


def test_networks_in_lock_step_are_those_that_train_alone() -> None:
    x, y = images_and_labels()
    config = replace(SMALL, forgetting_networks=3)
    alone = forgetting_history(x.double(), y, 3, NETWORK, config, SEED)
    for at_once in (2, 3):
        together = forgetting_history(x.double(), y, 3, NETWORK, config, SEED, at_once)
        assert torch.equal(together.t_learn, alone.t_learn)
        assert torch.equal(together.t_forget, alone.t_forget)


def test_the_history_depends_on_its_seed_alone(
    global_random_untouched: Callable[[int], AbstractContextManager[None]],
) -> None:
    runs = []
    for poison in (1, 2):
        with global_random_untouched(poison):
            runs.append(forgetting_history(*images_and_labels(), 3, NETWORK, SMALL, SEED))
    assert torch.equal(runs[0].t_learn, runs[1].t_learn)
    assert torch.equal(runs[0].t_forget, runs[1].t_forget)
    other = forgetting_history(*images_and_labels(), 3, NETWORK, SMALL, SeedTree.root(1))
    assert not torch.equal(runs[0].t_learn, other.t_learn)


def test_the_triangle_rises_to_its_peak_and_falls_to_nothing() -> None:
    config = ForgettingConfig(forgetting_lr=0.2)
    rates = [config.lr_at(epoch, 30) for epoch in range(30)]
    assert rates[:2] == pytest.approx([0.2 * 0.05, 0.2 * 0.15])
    assert rates[9] == pytest.approx(0.2 * 0.95)
    assert rates[10] == pytest.approx(0.2 * 0.975)
    assert rates[29] == pytest.approx(0.2 * 0.025)
    assert math.fsum(rates) / 30 == pytest.approx(0.1, rel=0.01)
    assert replace(config, forgetting_schedule="constant").lr_at(7, 30) == 0.2


def test_divergence_is_said() -> None:
    config = replace(SMALL, forgetting_lr=1e30)
    with pytest.raises(RequestError, match=r"times forgetting diverged; lower forgetting_lr \(it is 1e\+30\)"):
        forgetting_history(*images_and_labels(), 3, NETWORK, config, SEED)


def test_a_network_that_does_not_fit_is_not_called_divergent() -> None:
    with pytest.raises(RequestError, match="too deep for images of 8 x 8 pixels"):
        forgetting_history(*images_and_labels(), 3, NetworkSpec("convnet4"), SMALL, SEED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forgetting_networks": 0}, "forgetting_networks must be at least 1, but got 0"),
        ({"forgetting_first_epochs": 0}, "forgetting_first_epochs must be at least 1, but got 0"),
        ({"forgetting_second_epochs": -1}, "forgetting_second_epochs must be at least 1, but got -1"),
        ({"forgetting_batch_size": 0}, "forgetting_batch_size must be at least 1, but got 0"),
        ({"forgetting_lr": 0.0}, "forgetting_lr must be above 0, but got 0.0"),
        ({"forgetting_lr": math.nan}, "forgetting_lr must be above 0, but got nan"),
        ({"forgetting_momentum": 1.0}, r"forgetting_momentum must lie in \[0, 1\), but got 1.0"),
        ({"forgetting_weight_decay": -1.0}, "forgetting_weight_decay must be 0 or more, but got -1.0"),
        ({"forgetting_schedule": "triangle"}, "unknown forgetting_schedule 'triangle': did you mean 'triangular'"),
        ({"forgetting_rule": "good"}, "unknown forgetting_rule 'good': did you mean 'for_good'"),
    ],
)
def test_bad_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(SMALL, **changes)  # type: ignore[arg-type]
