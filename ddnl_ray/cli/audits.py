"""Commands that audit labels: noise-rate."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddnl_ray.cli.shared import device_option

if TYPE_CHECKING:
    import torch

    from analysis.noise_rate import Evidence, Findings, Labels, RateEstimate
    from ddnl_ray.data import Dataset, PreparedData
    from ddnl_ray.lnl.heldout import FoldsConfig, Step
    from ddnl_ray.noise import NoiseConfig, NoisyLabels
    from ddnl_ray.seeds import SeedTree

FEATURES = ("networks", "simclr")


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What the command line says."""

    data: str
    labels: Path | None
    root: Path | None
    size: int | None
    subset: int | None
    out: Path
    epochs: int
    folds: int
    features: str
    seed: int
    device: str
    alpha: float | None
    calibrated_on: Path | None
    ipc: float | None
    corrupt: str | None


@click.command("noise-rate")
@click.argument("data", metavar="DATA")
@click.option("--labels", type=click.Path(path_type=Path), help="A csv or parquet file of labels.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder that holds the data sets; default ~/data.")
@click.option("--size", type=int, help="Resize folder: and parquet: images.")
@click.option("--subset", type=int, help="Audit this many images, drawn at random.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("noise-rate"), show_default=True)
@click.option("--epochs", type=int, default=20, show_default=True, help="The most epochs of a training.")
@click.option("--folds", type=int, default=5, show_default=True, help="Networks; each judges the part it did not see.")
@click.option("--features", default="networks", show_default=True, help="Of neighbours: networks or simclr.")
@click.option("--seed", type=int, default=0, show_default=True)
@device_option
@click.option("--alpha", type=float, help="Corollary IV: clean samples that one distilled image is worth.")
@click.option(
    "--calibrated-on", type=click.Path(path_type=Path), metavar="RUN", help="Corollary IV: alpha of this run."
)
@click.option("--ipc", type=float, help="Corollary IV: images per class that are worth the whole set.")
@click.option("--corrupt", metavar="KIND:RATE", help="To try it out: add noise to true labels, as in symmetric:0.4.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def noise_rate_command(as_json: bool, **options: object) -> None:
    """Estimate how many labels of DATA are wrong, and say which and what to do.

    DATA is named as in sweep files: digits, cifar10, folder:PATH, parquet:PATH, ... The folder OUT gets
    noise-rate.html, noise-rate.json, and labels-suggested.csv: all labels, with those of the suspects replaced.

    \b
    Example:  ddnl noise-rate folder:photos --size 64 --device cuda
    """
    from analysis.noise_rate import to_json, to_text

    request = _Request(**options)  # type: ignore[arg-type]  # click gives the options by their names
    found = _audit(request)
    if as_json:
        click.echo(json.dumps(to_json(found)))
    else:
        click.echo(f"{to_text(found)}\n\npage: {request.out / 'noise-rate.html'}")


def _audit(request: _Request) -> Findings:
    """Check the request, train, and write what is found."""
    from analysis.noise_rate import find
    from ddnl_ray.audit import audit_config, require_enough
    from ddnl_ray.data import PrepareConfig, prepare
    from ddnl_ray.errors import RequestError, require_known
    from ddnl_ray.noise import apply_noise
    from ddnl_ray.seeds import SeedTree

    require_known("features", request.features, FEATURES)
    if request.alpha is not None and request.calibrated_on is not None:
        raise RequestError("--alpha and --calibrated-on both give alpha; leave one out")
    if (request.alpha is None and request.calibrated_on is None) != (request.ipc is None):
        raise RequestError("Corollary IV needs --ipc and one of --alpha and --calibrated-on, or none of them")
    if request.out.exists() and not request.out.is_dir():
        raise RequestError(f"--out {request.out} is a file; name a folder")
    noise = _noise(request.corrupt)
    loaded = _load(request)
    dataset = loaded.with_held_out()
    data = prepare(dataset, PrepareConfig(subset=request.subset, val_fraction=0))
    whole = apply_noise(
        noise,
        data.observed_labels,
        dataset=data.name,
        num_classes=data.num_classes,
        seed=request.seed,
        root=request.root,
        clean=data.clean_labels,
    )
    given = whole.select(data.train_index)
    require_enough(given.labels, data.classes, request.folds)
    config = audit_config(data.name, data.input_shape, request.folds, request.epochs)
    alpha = _alpha(request, len(given.labels), data.num_classes)
    if alpha is not None:
        alpha.rows(0.0)
    seed = SeedTree.root(request.seed).child("audit")
    evidence = _evidence(request, loaded, data, given, config, seed)
    extra: list[RateEstimate] = []
    if alpha is not None and evidence.gap is not None:
        extra = alpha.rows(evidence.gap.eps)
        evidence = dataclasses.replace(evidence, calibration=alpha.source)
    found = find(_labels(request, dataset, data, given), evidence, extra, seed.child("bootstrap").numpy())
    _write(request.out, found, dataset, whole.labels[: len(loaded.train_images)])
    return found


@dataclass(frozen=True)
class _Alpha:
    """The alpha of Corollary IV, with all that the corollary takes beside the gap."""

    num_labels: int
    num_classes: int
    ipc: float
    alpha: float
    ends: tuple[float, float] | None = None
    source: str = ""

    def rows(self, gap: float) -> list[RateEstimate]:
        """Return the estimates at a gap; a number that is out of its domain is a wrong request."""
        from analysis.noise_rate import corollary

        return corollary(self.num_labels, self.num_classes, self.alpha, self.ipc, gap, self.ends)


def _alpha(request: _Request, num_labels: int, num_classes: int) -> _Alpha | None:
    """Return alpha as it was given, or as a run calibrates it; None: Corollary IV is not asked for."""
    if request.ipc is None:
        return None
    if request.calibrated_on is None:
        assert request.alpha is not None
        return _Alpha(num_labels, num_classes, request.ipc, request.alpha)
    from analysis.analyze import law_rates
    from analysis.facts import Facts
    from analysis.noise_rate import calibrate
    from ddnl_ray.results import read_run

    frame = read_run(request.calibrated_on)
    facts = Facts.of(request.calibrated_on, frame)
    run = str(request.calibrated_on)
    found = calibrate(law_rates(frame, facts), facts, run, num_labels, num_classes)
    ends = (found.alpha.low, found.alpha.high)
    return _Alpha(num_labels, num_classes, request.ipc, found.alpha.value, ends, found.sentence)


def _noise(corrupt: str | None) -> NoiseConfig:
    """Return the noise that ``KIND:RATE`` (or ``natural:LABELS``) names; None: none."""
    from ddnl_ray.errors import RequestError
    from ddnl_ray.noise import NoiseConfig

    if corrupt is None:
        return NoiseConfig()
    kind, _, value = corrupt.partition(":")
    if kind == "natural":
        return NoiseConfig(kind, labels=value or None)
    try:
        return NoiseConfig(kind, float(value) if value else None)
    except ValueError as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"--corrupt needs KIND:RATE, as in symmetric:0.4, but got {corrupt!r}") from error


def _load(request: _Request) -> Dataset:
    """Read the data set; what the system refuses to read is a wrong request, too."""
    from ddnl_ray.data import load
    from ddnl_ray.errors import DataError

    try:
        return load(request.data, request.root, request.labels, request.size)
    except OSError as error:
        raise DataError(f"{request.data} cannot be read ({error}); check the path and its permissions") from error


def _evidence(
    request: _Request, loaded: Dataset, data: PreparedData, given: NoisyLabels, config: FoldsConfig, seed: SeedTree
) -> Evidence:
    """Train the networks, and the extractor where it is asked for."""
    from analysis.noise_rate import Evidence, pac_bayes_gap
    from ddnl_ray.audit import posterior_on_first_fold, with_features
    from ddnl_ray.features import train_simclr
    from ddnl_ray.lnl.heldout import held_out
    from ddnl_ray.recipes import extractor_of

    images, labels = data.train_images.to(request.device), given.labels.to(request.device)
    held = held_out(images, labels, data.num_classes, config, seed, _say)
    source = (
        f"{config.folds} networks ({config.network.name}), each of them trained on the other folds for at most "
        f"{config.epochs} epochs, judge the labels that they have not seen; neighbours are the "
        f"{held.neighbours.shape[1]} nearest images of the same fold in its network's features."
    )
    if request.features == "simclr":
        click.echo("training the extractor", err=True)
        dataset = loaded.with_held_out()
        pixels = dataset.train_images[data.train_index].float().to(request.device) / dataset.max_value
        held = with_features(held, train_simclr(pixels, extractor_of(data.name), seed.child("features")), pixels)
        source = source.split("; ")[0] + (
            f"; neighbours are the {held.neighbours.shape[1]} nearest of all images in the features of SimCLR, which "
            "has seen no labels."
        )
    num_test = len(loaded.test_images)
    if loaded.with_held_out() is loaded:
        source += f" The {num_test} images held out as test set are not audited."
    else:
        source += (
            f" The {num_test} images that sweeps hold out as their test set are audited too; labels-suggested.csv has "
            "the others, which sweeps train on."
        )
    own = posterior_on_first_fold(held, images, labels, data.num_classes, config, seed.child("posterior"))
    gap = pac_bayes_gap(
        own.start.numpy(), own.end.numpy(), own.sigmas, own.gibbs, own.error, own.num_validation, own.choices
    )
    return Evidence(
        probabilities=held.probabilities.numpy(), neighbours=held.neighbours.numpy(), source=source, gap=gap
    )


def _say(step: Step) -> None:
    """Say on standard error how far the training is: on a terminal in one line, elsewhere after every fold."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{step}", err=True, nl=step.epoch == step.epochs)
    elif step.epoch == step.epochs:
        click.echo(str(step), err=True)


def _labels(request: _Request, dataset: Dataset, data: PreparedData, given: NoisyLabels) -> Labels:
    """Return the labels with all that the findings say of them."""
    from analysis.noise_rate import Labels

    rows = data.train_index.numpy()
    noise = given.config
    options = {"rate": noise.rate, "labels": noise.labels}
    described = "".join(f", {name}: {value}" for name, value in options.items() if value is not None)
    settings = {
        "data.name": request.data,
        "data.root": request.root,
        "data.labels": request.labels,
        "data.size": request.size,
        "grid.noise": f"[{{kind: {noise.kind}{described}}}]",
    }
    return Labels(
        data=request.data + (f", with {request.corrupt} added" if request.corrupt else ""),
        settings={key: str(value) for key, value in settings.items() if value is not None},
        suggested=str(request.out / "labels-suggested.csv"),
        classes=data.classes,
        observed=given.labels.numpy(),
        rows=rows,
        files=None if dataset.train_files is None else [dataset.train_files[row] for row in rows],
        clean=None if given.clean is None else given.clean.numpy(),
    )


def _write(out: Path, found: Findings, dataset: Dataset, kept: torch.Tensor) -> None:
    """Write the page, the findings and the suggested labels of the ``kept`` rows, which sweeps read, into a folder."""
    from analysis.noise_rate import SHEET, render_page, suggested_labels, to_json
    from ddnl_ray.files import write_atomic, write_json

    rows = [int(found.labels.rows[suspect.row]) for suspect in found.suspects[:SHEET]]
    images = (dataset.train_images[rows].float() * (255 / dataset.max_value)).round().byte().numpy()
    labels = suggested_labels(found, kept.numpy())
    write_atomic(out / "noise-rate.html", render_page(found, images).encode())
    write_json(out / "noise-rate.json", to_json(found))
    write_atomic(out / "labels-suggested.csv", "\n".join(["label", *map(str, labels), ""]).encode())
