"""Running a trial: distil, look, evaluate, export, checkpoint.

A trial checkpoints as it goes, so a machine may take it away at any moment: started again with the same folder it
continues, bit for bit, from its last checkpoint, through distillation and through the evaluations that follow.
"""

from __future__ import annotations

import dataclasses
import math
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ddnl_ray import __version__
from ddnl_ray.card import expected, formation, label_kind, write_card
from ddnl_ray.data import augmentation
from ddnl_ray.distill import Auxiliary, Distilled, Method, Problem, State
from ddnl_ray.errors import CorruptFileError
from ddnl_ray.evaluate import Score, Split, train_and_score
from ddnl_ray.experts import training_labels
from ddnl_ray.experts.precision import products
from ddnl_ray.files import read_tensors, write_atomic, write_json, write_tensors
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.results import Outcome
from ddnl_ray.robust import compose, describe_choice, golden_term
from ddnl_ray.seeds import SeedTree
from ddnl_ray.trial.config import Options, TrialConfig, TrialInputs
from ddnl_ray.trial.outcomes import End, as_outcome, is_out_of_memory
from ddnl_ray.trial.progress import Look, Progress
from ddnl_ray.trial.rows import shared_columns

PATIENCE = 500
MAX_SMALLER = 3


def run_trial(config: TrialConfig, inputs: TrialInputs, folder: Path, options: Options) -> list[dict[str, Any]]:
    """Run one trial to its end, or continue it.

    Args:
        config: What to run.
        inputs: Data, labels and experts.
        folder: The trial's own folder: checkpoint, distilled set, card, preview, log of an error.
        options: How to run it.

    Where memory runs out, the trial goes on from its last checkpoint with less of it at a time: without kept tapes, in
    parts of a quarter the size. The numbers are the same up to rounding, and the rows say so.

    Returns:
        The rows of the result table (see :mod:`ddnl_ray.results`). An error of the trial becomes a row with its outcome
        and a sentence; only interrupts are raised.
    """
    for smaller in range(MAX_SMALLER + 1):
        trial = _Trial(config, inputs, folder, options, smaller)
        try:
            with products("float32", trial.device):
                rows = trial.run()
        except End as end:
            looks = trial.rows_of_looks(end.outcome, end.message)
            rows = looks or [trial.row(outcome=end.outcome, message=end.message)]
        except Exception as error:
            if is_out_of_memory(error) and smaller < MAX_SMALLER:
                torch.cuda.empty_cache()
                continue
            write_atomic(folder / "error.log", traceback.format_exc().encode())
            rows = [trial.row(**as_outcome(error, folder / "error.log"))]
        break
    wall_s, note = trial.wall_s(), trial.progress.note()
    return [{**row, "wall_s": wall_s, "message": f"{row['message']} {note}".strip()} for row in rows]


class _Trial:
    """A trial in progress."""

    def __init__(
        self, config: TrialConfig, inputs: TrialInputs, folder: Path, options: Options, smaller: int = 0
    ) -> None:
        self.config, self.inputs, self.folder, self.options = config, inputs, folder, options
        self.checkpoint_path = folder / "checkpoint.safetensors"
        self.progress = Progress(smaller=smaller)
        self.total = 0
        self.started = self.saved = time.monotonic()
        self.device = inputs.data.train_images.device
        self.composition = compose(config.method)

    def run(self) -> list[dict[str, Any]]:
        """Distil, evaluate, export; return the rows."""
        settings = self.composition.settings(self.config.params).base
        self.total = total = int(getattr(settings, "iterations", 0))
        method = self.composition.method(self.config.params)
        restored = self._restore(method)
        self._tell(restored[0].iteration if restored is not None else 0)
        problem = self._problem(method)
        state, best = restored if restored is not None else (method.init(problem, self._seed("distill")), None)
        self._check_rungs()
        while state.iteration < total:
            state = self._step(method, state, problem)
            if self._is_look(state.iteration, total):
                best = self._look(method, state, best, problem)
            if time.monotonic() - self.saved > self.options.checkpoint_s:
                self._save(state, best)
            self._check_time(state, best)
        if total and not self.progress.accepted:
            raise End(Outcome.DIVERGED if math.isfinite(self.progress.last_loss) else Outcome.NONFINITE)
        if not all(bool(tensor.isfinite().all()) for tensor in state.tensors().values()):
            raise End(Outcome.NONFINITE)
        return self._evaluate(method, state, best, problem)

    def _check_time(self, state: State, best: State | None) -> None:
        """End the trial where its time is up; it can go on from its checkpoint."""
        over = time.time() > self.options.deadline
        if over or self.wall_s() > self.options.limit_s:
            self._save(state, best)
            why = "The time budget of the sweep ended; the same command goes on from the checkpoint." if over else ""
            raise End(Outcome.TIMEOUT, why)

    def _problem(self, method: Method[Any]) -> Problem:
        config, data = self.config, self.inputs.data
        network = None
        if method.needs_experts or method.needs_network:
            seed = SeedTree.root(0).torch()
            network = Flat(build(config.network, data.input_shape, data.num_classes, seed, self.device))
        images, labels = data.train_images, training_labels(data, self.inputs.labels)
        trusted = self.inputs.trusted
        if trusted is not None:
            images, labels = images[trusted.rows], trusted.labels
            if self.composition.cleaner is not None:
                trusted.require_enough(self.composition.cleaner, data.classes, config.ipc)
        parts, targets, golden = self.composition.settings(config.params).parts, self.inputs.targets, self.inputs.golden
        return Problem(
            images=images,
            labels=labels,
            num_classes=data.num_classes,
            ipc=config.ipc,
            network=network,
            augment=augmentation(config.augment),
            experts=self.inputs.experts,
            graph_memory=self.options.graph_memory,
            smaller=self.progress.smaller,
            auxiliary=Auxiliary(targets, parts["tiat"].beta) if targets is not None else None,
            extra=golden_term(parts["rdc"], golden) if golden is not None else None,
            transform=data.transform.private() if method.keeps_pixels else None,
        )

    def _step(self, method: Method[Any], state: Any, problem: Problem) -> Any:
        """Take one step and watch over it."""
        state, info = method.step(state, problem, self._seed("distill"))
        progress = self.progress
        progress.last_loss = info.loss
        progress.accepted += info.accepted
        progress.rejected = 0 if info.accepted else progress.rejected + 1
        self._judge(method, state)
        if progress.rejected >= PATIENCE:
            finite = math.isfinite(info.loss)
            raise End(
                Outcome.DIVERGED if finite else Outcome.NONFINITE,
                f"{progress.rejected} updates in a row were refused (matching loss {info.loss:.3g}); "
                "lower lr_img, lr_teacher or max_start_epoch",
            )
        return state

    def _judge(self, method: Method[Any], state: Any) -> None:
        """Note how right the method's choice of training images is, where it has just been made anew."""
        choice = method.choice(state)
        if choice is None or choice.refresh == self.progress.refreshes:
            return
        self.progress.refreshes = choice.refresh
        if not choice.refresh:
            return
        data, clean = self.inputs.data, self.inputs.labels.clean
        if clean is not None and self.inputs.trusted is None:
            observed = training_labels(data, self.inputs.labels)
            said = describe_choice(choice, clean[data.train_index.cpu()], observed)
            self.progress.trust.append({"iteration": state.iteration, **said})

    def _is_look(self, iteration: int, total: int) -> bool:
        every, rungs = self.config.eval_every, self.options.rungs
        if every == 0 and not rungs:
            return False
        return iteration == total or (every > 0 and iteration % every == 0) or iteration in rungs

    def _look(self, method: Method[Any], state: Any, best: Any, problem: Problem) -> Any:
        """Score the set on the selection split with one network; keep the best state so far."""
        seed = self._seed("look", state.iteration)
        (score,) = self._train(
            method.export(state, problem), self.config.eval_networks[0], seed, [self.config.select_on]
        )
        if not self.progress.looks or score.accuracy > max(look.accuracy for look in self.progress.looks):
            best = state
        self.progress.looks.append(Look(state.iteration, score.accuracy, score.loss))
        self._save(state, best)
        self._check_rungs()
        return best

    def _check_rungs(self) -> None:
        """End the trial where its last look lies on a rung that it does not reach."""
        look = self.progress.looks[-1] if self.progress.looks else None
        if look is not None and look.accuracy < self.options.rungs.get(look.iteration, 0.0):
            raise End(Outcome.STOPPED)

    def _evaluate(self, method: Method[Any], state: Any, best: Any, problem: Problem) -> list[dict[str, Any]]:
        """Score the last and the selected set with all networks, export the selected one, return the rows."""
        sets = {"final": state, "selected": best if best is not None else state}
        same = sets["final"].iteration == sets["selected"].iteration
        rows = self.rows_of_looks(Outcome.OK, "")
        for name, chosen in sets.items():
            if name == "selected" and same:
                continue
            for network, repeat, scores in self._scores(name, method.export(chosen, problem), state, best):
                flags = {"is_final": name == "final", "is_selected": same or name == "selected"}
                place = {"iteration": chosen.iteration, "eval_backbone": network.name, "eval_seed": repeat}
                rows += [self._scored(score, place | flags) for score in scores]
        if self.inputs.trust is not None:
            write_json(self.folder / "trust.json", self.inputs.trust)
        elif self.progress.trust:
            write_json(self.folder / "trust.json", {"refreshes": self.progress.trust})
        if self.config.ipc is not None:
            self._export(method.export(sets["selected"], problem), rows)
        return rows

    def _scores(
        self, name: str, training: Distilled, state: State, best: State | None
    ) -> Iterator[tuple[NetworkSpec, int, list[Score]]]:
        """Yield the scores of every network and repeat, from the checkpoint where they are already there."""
        for network in self.config.eval_networks:
            for repeat in range(self.config.repeats):
                key = f"{name}/{network.name}/{repeat}"
                if key not in self.progress.scores:
                    self._check_time(state, best)
                    seed = self._seed("evaluate", network.name, repeat)
                    scores = self._train(training, network, seed, list(self._splits()))
                    self.progress.scores[key] = [dataclasses.asdict(score) for score in scores]
                    if time.monotonic() - self.saved > self.options.checkpoint_s:
                        self._save(state, best)
                yield network, repeat, [Score(**score) for score in self.progress.scores[key]]

    def _train(self, training: Distilled, network: NetworkSpec, seed: SeedTree, names: list[str]) -> list[Score]:
        splits = {name: split for name, split in self._splits().items() if name in names}
        classes = self.inputs.data.num_classes
        recipe, select_on = self.config.evaluation, self.config.select_on
        return train_and_score(training, recipe, network, classes, splits, select_on, seed, self.progress.smaller)

    def _splits(self) -> dict[str, Split]:
        """Return the splits that this data set has."""
        data, noisy = self.inputs.data, self.inputs.labels
        splits = {"test": Split(data.test_images, data.test_labels)}
        if len(data.val_index):
            rows = data.val_index.cpu()
            splits["val_noisy"] = Split(data.val_images, noisy.labels[rows].to(self.device))
            if noisy.clean is not None:
                splits["val_clean"] = Split(data.val_images, noisy.clean[rows].to(self.device))
        return splits

    def _export(self, training: Distilled, rows: list[dict[str, Any]]) -> None:
        """Write the distilled set with its card."""
        config, labels = self.config, self.inputs.labels
        tested = [row for row in rows if row["split"] == "test" and row["is_selected"]]
        own = [row["accuracy"] for row in tested if row["eval_backbone"] == config.eval_networks[0].name]
        about = {
            "method": config.method,
            "ipc": config.ipc,
            "step_size": training.step_size,
            "formation": formation(training),
            "network": dataclasses.asdict(config.eval_networks[0]),
            "evaluation": dataclasses.asdict(config.evaluation),
            "expected_accuracy": dataclasses.asdict(expected("test", own)),
            "selected_on": config.select_on,
            "noise": {
                **dataclasses.asdict(config.noise),
                "seed": config.noise_seed,
                "rate_realised": labels.rate_realised,
                "labels_sha256": labels.sha256,
            },
            "config": dataclasses.asdict(config),
            "config_hash": config.hash,
            "code_version": __version__,
        }
        write_card(self.folder, training.images, training.labels, self.inputs.data, about, label_kind(training))

    def row(self, **values: Any) -> dict[str, Any]:
        """Return one row of the result table."""
        return {**shared_columns(self.config, self.inputs, self.options), **values}

    def rows_of_looks(self, outcome: Outcome, message: str) -> list[dict[str, Any]]:
        """Return one row for every look at the selection split."""
        return [
            self.row(
                iteration=look.iteration,
                eval_backbone=self.config.eval_networks[0].name,
                split=self.config.select_on,
                accuracy=look.accuracy,
                loss=look.loss,
                outcome=outcome,
                message=message,
            )
            for look in self.progress.looks
        ]

    def _scored(self, score: Score, place: dict[str, Any]) -> dict[str, Any]:
        values = {"accuracy": score.accuracy, "accuracy_best": score.accuracy_best, "loss": score.loss}
        return self.row(split=score.split, outcome=Outcome.OK, message="", **values, **place)

    def _save(self, state: State, best: State | None) -> None:
        """Write a checkpoint and tell the watcher."""
        tensors = {f"state.{name}": tensor for name, tensor in state.tensors().items()}
        if best is not None:
            # Cloned because the best state may be the state itself, and safetensors refuses shared memory.
            tensors |= {f"best.{name}": tensor.clone() for name, tensor in best.tensors().items()}
        self.progress.wall_s, now = self.wall_s(), time.monotonic()
        self.started = self.saved = now
        meta = {"config_hash": self.config.hash, "progress": self.progress.as_json()}
        write_tensors(self.checkpoint_path, tensors, meta)
        self._tell(state.iteration)
        self.options.on_progress(state.iteration)

    def _tell(self, iteration: int) -> None:
        """Write how far the trial is, and since when."""
        live = {
            "trial": self.options.trial,
            "iteration": iteration,
            "iterations": self.total,
            "looks": self.progress.as_json()["looks"],
            "wall_s": self.wall_s(),
            "written_at": time.time(),
        }
        write_json(self.folder / "progress.json", live)

    def _restore(self, method: Method[Any]) -> tuple[Any, Any] | None:
        """Return the state and the best state of the checkpoint, where there is one of this configuration."""
        if self.checkpoint_path.is_file():
            with suppress(CorruptFileError):
                return self._read_checkpoint(method)
        return None

    def _read_checkpoint(self, method: Method[Any]) -> tuple[Any, Any]:
        """Return the state and the best state of the checkpoint.

        Raises:
            CorruptFileError: It is not readable, or not of this configuration.
        """
        tensors, meta = read_tensors(self.checkpoint_path)
        if meta.get("config_hash") != self.config.hash:
            raise CorruptFileError(f"{self.checkpoint_path} is of another configuration")
        states = []
        for prefix in ("state.", "best."):
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            states.append(method.state.from_tensors(own, self.device) if own else None)
        smaller = self.progress.smaller
        self.progress = Progress.from_json(meta["progress"])
        self.progress.smaller = max(smaller, self.progress.smaller)
        return states[0], states[1]

    def _seed(self, *names: str | int) -> SeedTree:
        return self.config.seeds().child(*names)

    def wall_s(self) -> float:
        """Return the seconds spent on the trial, interruptions left out."""
        return self.progress.wall_s + time.monotonic() - self.started
