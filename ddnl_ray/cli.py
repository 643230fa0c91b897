"""The command line: ``ddnl``. Heavy packages are imported where they are used, so that help comes at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddnl_ray import __version__
from ddnl_ray.errors import CorruptFileError, DdnlError

if TYPE_CHECKING:
    from ddnl_ray.experts import ExpertStore
    from ddnl_ray.sweep.plan import Plan
    from ddnl_ray.sweep.schema import SweepFile

WRONG_REQUEST, FAILED_CELLS, INTERRUPTED = 2, 1, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ddnl")
def cli() -> None:
    """Dataset distillation with noisy labels, swept on Ray.

    \b
    Start with:  ddnl sweep sweeps/quickstart.yaml
    """


def sweep_options(command: Any) -> Any:
    """Add the options that read a sweep file."""
    command = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key.")(command)
    command = click.option("--profile", metavar="NAME", help="Apply a profile of the file.")(command)
    return click.argument("file", type=click.Path(path_type=Path))(command)


def store_option(command: Any) -> Any:
    """Add the option that names the expert store."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        envvar="DDNL_STORE",
        default=Path("~/.cache/ddnl/experts"),
        show_default=True,
        help="Where expert buffers are kept (or DDNL_STORE).",
    )(command)


def device_option(command: Any) -> Any:
    """Add the option that names the device of work in this process."""
    return click.option(
        "--device", default="cpu", show_default=True, callback=_require_device, help="cpu, cuda, cuda:1, ..."
    )(command)


def _require_device(_context: click.Context, _option: click.Parameter, device: str) -> str:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise click.BadParameter(f"{device!r} is not a device here: {str(error).splitlines()[0]}") from error
    return device


def run_options(command: Any) -> Any:
    """Add the options that name the run folder."""
    command = click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)(command)
    return click.option("--name", help="Name of the run; default: the file's.")(command)


@cli.command("sweep")
@sweep_options
@run_options
@store_option
@click.option("--address", metavar="ADDRESS", help="A Ray cluster (auto, or host:port); default: this machine alone.")
@click.option("--cpus", type=int, help="Cores to use on this machine; default: all.")
@click.option("--gpus", type=int, help="GPUs to use on this machine; default: all.")
@click.option("--rebuild", is_flag=True, help="Train corrupt experts again instead of refusing them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
def sweep_command(
    file: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    out: Path,
    store: Path,
    address: str | None,
    cpus: int | None,
    gpus: int | None,
    rebuild: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Run a sweep file, or continue it: the same command finishes what is left.

    \b
    Example:  ddnl sweep sweeps/quickstart.yaml --set grid.ipc=[1,10] --dry-run
    """
    from rich.console import Console

    from ddnl_ray.sweep.driver import Machine, run_sweep
    from ddnl_ray.sweep.ledger import Ledger
    from ddnl_ray.sweep.live import StatusWatcher

    plan = _plan(file, profile, overrides, name)
    run, experts = out / plan.sweep.name, _store(store)
    if dry_run:
        _print_plan(plan, run, experts, as_json)
        return
    ledger = Ledger(run)
    with ledger.lock(), StatusWatcher(Console(stderr=True)) as watcher:
        before = ledger.settled()
        try:
            run_sweep(plan, run, experts, Machine(address, cpus, gpus), watcher, rebuild)
        finally:
            report = _write_report(run)
    _conclude(plan, ledger, before, report, as_json)


@cli.command("distill")
@sweep_options
@run_options
@store_option
@device_option
@click.option("--rebuild", is_flag=True, help="Train corrupt experts again instead of refusing them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def distill_command(
    file: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    out: Path,
    store: Path,
    device: str,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Run the one trial of a file in this process, without Ray.

    \b
    Example:  ddnl distill sweeps/one_trial.yaml --device cuda
    """
    from rich.console import Console

    from ddnl_ray.sweep.ledger import Ledger
    from ddnl_ray.sweep.live import StatusWatcher
    from ddnl_ray.sweep.local import run_one

    plan = _plan(file, profile, overrides, name)
    run = out / plan.sweep.name
    ledger = Ledger(run)
    with ledger.lock(), StatusWatcher(Console(stderr=True)) as watcher:
        before = ledger.settled()
        run_one(plan, run, _store(store), device, watcher, rebuild)
        report = _write_report(run)
    _conclude(plan, ledger, before, report, as_json)


@cli.command("status")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status_command(run: Path, as_json: bool) -> None:
    """Say how far a run is, from any shell, while it runs.

    \b
    Example:  ddnl status runs/quickstart
    """
    from ddnl_ray.sweep.status import read_status, status_text

    status = read_status(run)
    click.echo(json.dumps(status) if as_json else status_text(status))


@cli.command("table")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option("--md", "style", flag_value="md", help="Print Markdown.")
@click.option("--latex", "style", flag_value="latex", help="Print LaTeX.")
@click.option("--json", "style", flag_value="json", help="Print JSON.")
def table_command(run: Path, split: str, style: str | None) -> None:
    """Print the accuracies of a run: n, mean and 95 % interval of every setting.

    \b
    Example:  ddnl table runs/quickstart --md
    """
    from analysis.tables import accuracy_table, to_json, to_latex, to_markdown, to_text
    from ddnl_ray.errors import require_known
    from ddnl_ray.results import SPLITS, read_run
    from ddnl_ray.sweep.ledger import Ledger

    require_known("split", split, SPLITS)
    Ledger(run).consolidate()
    table = accuracy_table(read_run(run), split)
    if style == "json":
        click.echo(json.dumps(to_json(table)))
    else:
        click.echo({"md": to_markdown, "latex": to_latex, None: to_text}[style](table))


@cli.command("report")
@click.argument("run", type=click.Path(path_type=Path))
def report_command(run: Path) -> None:
    """Write report.html and the figures of a run again.

    \b
    Example:  ddnl report runs/quickstart
    """
    from ddnl_ray.results import read_run

    report = _write_report(run)
    if report is None:
        read_run(run)
    click.echo(str(report))


@cli.group("experts")
def experts_group() -> None:
    """Look after the store of expert trajectories."""


@experts_group.command("ls")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def experts_ls(store: Path, as_json: bool) -> None:
    """List the stored buffers.

    \b
    Example:  ddnl experts ls
    """
    import dataclasses
    import time

    buffers = list(_store(store).buffers())
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(buffer) for buffer in buffers]))
        return
    for buffer in buffers:
        days = (time.time() - buffer.used_at) / 86400
        what = " ".join(str(buffer.about.get(key, "")) for key in ("dataset", "noise"))
        size = f"{buffer.num_bytes / 2**20:.1f} MiB"
        click.echo(f"{buffer.key}  {buffer.experts:4d} experts  {size:>12}  used {days:.1f} days ago  {what}")
    click.echo(f"{len(buffers)} buffers, {sum(b.num_bytes for b in buffers) / 2**20:.1f} MiB in {_store(store).root}")


@experts_group.command("build")
@sweep_options
@store_option
@device_option
@click.option("--rebuild", is_flag=True, help="Train corrupt experts again instead of refusing them.")
def experts_build(
    file: Path, profile: str | None, overrides: tuple[str, ...], store: Path, device: str, rebuild: bool
) -> None:
    """Train the experts that a sweep file needs and the store lacks, in this process.

    \b
    Example:  ddnl experts build sweeps/quickstart.yaml
    """
    from ddnl_ray.sweep.local import build_all

    plan, experts = _plan(file, profile, overrides, None), _store(store)
    for key, index in build_all(plan, experts, device, rebuild):
        click.echo(f"{key} expert {index}")


@experts_group.command("gc")
@store_option
@click.option("--unused-days", type=float, default=30.0, show_default=True, help="Remove what no sweep used since.")
def experts_gc(store: Path, unused_days: float) -> None:
    """Remove buffers that no sweep has used for a while.

    \b
    Example:  ddnl experts gc --unused-days 7
    """
    removed = _store(store).collect(unused_days)
    for buffer in removed:
        click.echo(f"removed {buffer.key} ({buffer.num_bytes / 2**20:.1f} MiB)")
    click.echo(f"{len(removed)} buffers removed")


@cli.group("data")
def data_group() -> None:
    """Look at data sets."""


@data_group.command("ls")
def data_ls() -> None:
    """List the data sets that can be named.

    \b
    Example:  ddnl data ls
    """
    from ddnl_ray.data import BENCHMARKS

    for name in [*BENCHMARKS, "folder:PATH", "parquet:PATH"]:
        click.echo(name)


@data_group.command("check")
@click.argument("name")
@click.option("--root", type=click.Path(path_type=Path), help="Folder that holds the data sets; default ~/data.")
@click.option("--labels", type=click.Path(path_type=Path), help="A csv or parquet file of labels.")
@click.option("--size", type=int, help="Resize folder: and parquet: images.")
@click.option("--download", is_flag=True, help="Fetch CIFAR where it is not there.")
def data_check(name: str, root: Path | None, labels: Path | None, size: int | None, download: bool) -> None:
    """Read a data set whole and say what is in it.

    \b
    Example:  ddnl data check cifar10 --root ~/data
    """
    from ddnl_ray.data import load

    dataset = load(name, root, labels, size, download)
    channels, height, width = dataset.train_images.shape[1:]
    click.echo(f"{dataset.name}: {dataset.source}")
    click.echo(f"{len(dataset.train_images)} training and {len(dataset.test_images)} test images, ", nl=False)
    click.echo(f"{channels} x {height} x {width}, {dataset.num_classes} classes")
    click.echo(f"true labels: {'known' if dataset.clean_labels is not None else 'unknown'}; licence: {dataset.licence}")


def _plan(file: Path, profile: str | None, overrides: tuple[str, ...], name: str | None) -> Plan:
    from ddnl_ray.sweep.plan import make_plan
    from ddnl_ray.sweep.schema import read_sweep

    if name is not None:
        overrides = (*overrides, f"name={json.dumps(name)}")
    sweep: SweepFile = read_sweep(file, profile, overrides)
    return make_plan(sweep)


def _store(path: Path) -> ExpertStore:
    from ddnl_ray.experts import ExpertStore

    return ExpertStore(path.expanduser())


def _write_report(run: Path) -> Path | None:
    """Write the report of a run that has results."""
    from analysis.report import write_report
    from ddnl_ray.sweep.ledger import Ledger

    frame = Ledger(run).consolidate()
    return write_report(run, frame) if frame is not None else None


def _print_plan(plan: Plan, run: Path, store: ExpertStore, as_json: bool) -> None:
    from ddnl_ray.sweep.estimate import estimate, estimate_text

    figures = estimate(plan, run, store)
    click.echo(json.dumps(figures) if as_json else estimate_text(plan, figures))


def _conclude(plan: Plan, ledger: Any, before: set[str], report: Path | None, as_json: bool) -> None:
    """Print how a sweep ended, write the summary, and exit with 1 where a trial failed."""
    from ddnl_ray.sweep.status import conclude

    summary, failed = conclude(plan, ledger, before, report)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(f"{summary['done']} of {summary['trials']} trials done ({summary['cached']} were there before)")
        for result in failed:
            click.echo(f"{result.outcome}: {result.trial}: {result.message}", err=True)
        click.echo(f"results: {summary['results']}\nreport:  {summary['report']}")
    if failed:
        sys.exit(FAILED_CELLS)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn our errors into messages and exit codes."""
    try:
        yield
    except (DdnlError, CorruptFileError) as error:
        click.echo(f"ddnl: {error}", err=True)
        sys.exit(WRONG_REQUEST)
    except KeyboardInterrupt:
        click.echo("ddnl: interrupted; run the same command again to continue", err=True)
        sys.exit(INTERRUPTED)


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    with _exit_codes():
        try:
            cli.main(standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(WRONG_REQUEST)
        except click.Abort as error:
            raise KeyboardInterrupt from error
