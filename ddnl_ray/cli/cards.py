"""Commands around a finished distilled set: show, evaluate, verify, export."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddnl_ray.cli.shared import device_option
from ddnl_ray.storage.option import ADDRESS

if TYPE_CHECKING:
    from ddnl_ray.cards import Card, Retrained, SealedTest, Verdict
    from ddnl_ray.evaluate import EvalRecipe
    from ddnl_ray.models import NetworkSpec
    from ddnl_ray.storage import Address

NOT_AS_PROMISED = 1


def card_argument(command: Any) -> Any:
    """Add the argument that names a card."""
    return click.argument("card", type=ADDRESS)(command)


def retraining_options(command: Any) -> Any:
    """Add the options of commands that train networks on a card's set."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of the new networks."),
        device_option,
        click.option(
            "--root", type=click.Path(path_type=Path), help="Folder that holds the data sets; default ~/data."
        ),
        click.option("--data", metavar="DATA", help="The data set with the test images; default: the card's."),
        click.option("--repeats", type=int, default=3, show_default=True, help="Networks to train."),
    ):
        command = option(command)
    return card_argument(command)


@click.command("show")
@card_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(card: Address, as_json: bool) -> None:
    """Say what a distilled set is, what it is worth, and how to use it.

    CARD is the folder that holds card.json, or that file.

    \b
    Example:  ddnl show runs/quickstart/trials/TRIAL
    """
    from ddnl_ray.cards import describe, read_card

    found = read_card(_folder(card))
    click.echo(json.dumps(found.about) if as_json else describe(found.folder, found.about))


@click.command("evaluate")
@retraining_options
@click.option(
    "--network", "networks", multiple=True, metavar="NAME", help="What to train; default: the card's network."
)
@click.option("--width", type=int, help="Width of these networks; default: their own, and the card's of its network.")
@click.option("--epochs", type=int, help="Epochs; default: the card's.")
def evaluate_command(
    card: Address,
    networks: tuple[str, ...],
    width: int | None,
    epochs: int | None,
    repeats: int,
    data: str | None,
    root: Path | None,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Train networks from scratch on a distilled set by its card's recipe, and score them on the test set.

    \b
    Example:  ddnl evaluate runs/quickstart/trials/TRIAL --network convnet2 --network convnet3 --repeats 5
    """
    import dataclasses

    from ddnl_ray.cards import read_card

    found = read_card(_folder(card))
    recipe = found.recipe if epochs is None else dataclasses.replace(found.recipe, epochs=epochs)
    specs = [_network(found, name, width) for name in dict.fromkeys(networks or (found.network.name,))]
    for spec in specs:
        spec.require_fits(found.input_shape)
    test = _sealed(found, data, root, device)
    results = [_retrain(found, recipe, spec, test, repeats, seed, device) for spec in specs]
    if as_json:
        promised = found.about["expected_accuracy"]
        said = {"card": str(found.folder), "dataset": found.about["dataset"], "method": found.about["method"]}
        note = {"epochs": recipe.epochs, "test_images": len(test.split.labels), "note": test.note}
        click.echo(json.dumps({**said, **note, "promised": promised, "results": [_as_json(each) for each in results]}))
        return
    for each in results:
        click.echo(_line(each))
    click.echo(_promised(found))


@click.command("verify")
@retraining_options
def verify_command(
    card: Address, repeats: int, data: str | None, root: Path | None, device: str, seed: int, as_json: bool
) -> None:
    """Check a distilled set's files, train networks on it, and say whether it is worth what its card promises.

    It fails where a checksum, a shape or a value does not fit, and where the mean of the new networks lies below the
    promised one by more than chance explains (one-sided, two samples with a pooled spread, 99 % level).
    Exit codes: 0 it passes, 1 it fails, 2 it is no card.

    \b
    Example:  ddnl verify runs/quickstart/trials/TRIAL --repeats 5
    """
    from ddnl_ray.cards import judge, problems, read_about, read_card

    folder = _folder(card)
    wrong = problems(folder, read_about(folder))
    if wrong:
        if as_json:
            click.echo(json.dumps({"card": str(folder), "passed": False, "problems": wrong, "test": None}))
        else:
            click.echo("\n".join([*wrong, f"FAIL: {folder} is not as it was written; fetch it again"]))
        sys.exit(NOT_AS_PROMISED)
    found = read_card(folder)
    promised = found.about["expected_accuracy"]
    if repeats > 0:
        judge(promised, [0.0] * repeats, 1)  # says so where no test is possible, before networks are trained
    test = _sealed(found, data, root, device)
    result = _retrain(found, found.recipe, found.network, test, repeats, seed, device)
    verdict = judge(promised, result.accuracies, len(test.split.labels))
    if as_json:
        import dataclasses

        said = {"card": str(folder), "passed": verdict.passed, "problems": [], "note": test.note}
        click.echo(json.dumps({**said, "promised": promised, **_as_json(result), "test": dataclasses.asdict(verdict)}))
    else:
        click.echo(f"files: as written\n{_line(result)}\n{_promised(found)}\n{_verdict(verdict)}")
    if not verdict.passed:
        sys.exit(NOT_AS_PROMISED)


@click.command("export")
@card_argument
@click.option("--format", "kind", required=True, metavar="FORMAT", help="parquet, imagefolder or npz.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder that is new, or empty.")
@click.option(
    "--formation", default="stored", show_default=True, help="stored, or decoded: the images that stored ones hold."
)
@click.option("--json", "as_json", is_flag=True, help="Print the card of the export.")
def export_command(card: Address, kind: str, out: Path, formation: str, as_json: bool) -> None:
    """Write a distilled set as pixels that other tools read: the transform undone, cut to 8 bits.

    Labels are written as classes, and as they are where they are soft.

    \b
    Example:  ddnl export runs/quickstart/trials/TRIAL --format parquet --out distilled
    """
    from ddnl_ray.cards import export, read_card

    found = read_card(_folder(card))
    about = export(found, kind, out, formation)
    if as_json:
        click.echo(json.dumps({"out": str(out), **about}))
        return
    num, height, width, channels = about["images"]["shape"]
    click.echo(f"{num} images of {channels} x {height} x {width}, {kind}: {out}")
    click.echo(f"{100 * about['pixels']['share_cut']:.1f} % of the pixel values lay outside [0, 1] and were cut")
    if about["formation"] is not None:
        click.echo("stored images hold several training images each; --formation decoded writes those")


def _folder(address: Address) -> Path:
    """Return the folder of a card on this machine, brought here where it is remote."""
    from ddnl_ray.cards.read import FILE
    from ddnl_ray.storage import RemoteAddress, open_folder

    if isinstance(address, RemoteAddress):
        import dataclasses

        key = address.key.removesuffix(FILE).rstrip("/")
        folder = open_folder(dataclasses.replace(address, key=key), "read")
        folder.check()
        folder.pull()
        return folder.path
    path = address.expanduser()
    return path.parent if path.is_file() and path.name == FILE else path


def _network(card: Card, name: str, width: int | None) -> NetworkSpec:
    """Return a network by name; the card's own network has the card's width."""
    from ddnl_ray.models import NetworkSpec

    return card.network if width is None and name == card.network.name else NetworkSpec(name, width)


def _sealed(card: Card, data: str | None, root: Path | None, device: str) -> SealedTest:
    from ddnl_ray.cards import sealed_test

    test = sealed_test(card, data, root, device)
    if test.note:
        click.echo(f"note: {test.note}", err=True)
    return test


def _retrain(
    card: Card, recipe: EvalRecipe, spec: NetworkSpec, test: SealedTest, repeats: int, seed: int, device: str
) -> Retrained:
    from ddnl_ray.cards import retrain

    return retrain(card.to(device), recipe, spec, test.split, repeats, seed, _say(spec, repeats))


def _say(spec: NetworkSpec, repeats: int) -> Callable[[int, float], None]:
    """Return what says on standard error how every network did."""

    def say(repeat: int, accuracy: float) -> None:
        click.echo(f"{spec.name} {repeat + 1}/{repeats}: {100 * accuracy:.1f} %", err=True)

    return say


def _as_json(result: Retrained) -> dict[str, Any]:
    summary = result.summary
    return {
        "network": result.network.name,
        "width": result.network.width,
        "mean": summary.mean,
        "low": summary.low,
        "high": summary.high,
        "n": summary.n,
        "accuracies": list(result.accuracies),
    }


def _line(result: Retrained) -> str:
    import dataclasses

    from ddnl_ray.cards.words import promise

    width = f" width {result.network.width}" if result.network.width else ""
    return f"{result.network.name}{width}: {promise(dataclasses.asdict(result.summary))}"


def _promised(card: Card) -> str:
    from ddnl_ray.cards.words import promise

    return f"the card promises {promise(card.about['expected_accuracy'])} with {card.network.name}"


def _verdict(verdict: Verdict) -> str:
    word, side = ("PASS", "at least") if verdict.passed else ("FAIL", "below")
    return (
        f"{word}: {100 * verdict.mean:.1f} % is {side} {100 * verdict.bound:.1f} %, the lower end of the one-sided "
        f"{100 * verdict.level:.0f} % prediction interval for the mean of {verdict.n} networks "
        f"(pooled deviation {100 * verdict.sd:.2f}, {verdict.df} degrees of freedom)"
    )
