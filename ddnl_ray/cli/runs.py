"""Commands that make runs and look at them: sweep, distill, status, table, report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddnl_ray.cli.shared import (
    device_option,
    open_run,
    open_store,
    read_plan,
    run_options,
    store_option,
    sweep_options,
)
from ddnl_ray.storage.option import ADDRESS
from ddnl_ray.storage.reading import is_read, reading

if TYPE_CHECKING:
    from ddnl_ray.experts import ExpertStore
    from ddnl_ray.storage import Address, Folder
    from ddnl_ray.sweep.plan import Plan

FAILED_CELLS = 1


@click.command("sweep")
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
    out: Address,
    store: Address,
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

    plan = read_plan(file, profile, overrides, name)
    run, experts = open_run(out / plan.sweep.name, "drive"), open_store(store, write=not dry_run)
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


@click.command("distill")
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
    out: Address,
    store: Address,
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

    plan = read_plan(file, profile, overrides, name)
    run, experts = open_run(out / plan.sweep.name, "drive"), open_store(store, write=True)
    ledger = Ledger(run)
    with ledger.lock(), StatusWatcher(Console(stderr=True)) as watcher:
        before = ledger.settled()
        run_one(plan, run, experts, device, watcher, rebuild)
        report = _write_report(run)
    _conclude(plan, ledger, before, report, as_json)


@click.command("status")
@click.argument("run", type=ADDRESS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status_command(run: Address, as_json: bool) -> None:
    """Say how far a run is, from any shell, while it runs.

    \b
    Example:  ddnl status runs/quickstart
    """
    from ddnl_ray.sweep.status import read_status, status_text

    status = read_status(open_run(run, "read"))
    click.echo(json.dumps(status) if as_json else status_text(status))


@click.command("table")
@click.argument("run", type=ADDRESS)
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option("--md", "style", flag_value="md", help="Print Markdown.")
@click.option("--latex", "style", flag_value="latex", help="Print LaTeX.")
@click.option("--json", "style", flag_value="json", help="Print JSON.")
def table_command(run: Address, split: str, style: str | None) -> None:
    """Print the accuracies of a run: n, mean and 95 % interval of every setting.

    \b
    Example:  ddnl table runs/quickstart --md
    """
    from analysis.tables import accuracy_table, to_json, to_latex, to_markdown, to_text
    from ddnl_ray.errors import require_known
    from ddnl_ray.results import SPLITS, read_run
    from ddnl_ray.sweep.ledger import Ledger

    require_known("split", split, SPLITS)
    with reading(run) as folder:
        Ledger(folder).consolidate()
        table = accuracy_table(read_run(folder), split)
    if style == "json":
        click.echo(json.dumps(to_json(table)))
    else:
        click.echo({"md": to_markdown, "latex": to_latex, None: to_text}[style](table))


@click.command("report")
@click.argument("run", type=ADDRESS)
def report_command(run: Address) -> None:
    """Write report.html and the figures of a run again.

    \b
    Example:  ddnl report runs/quickstart
    """
    from ddnl_ray.results import read_run

    with reading(run) as folder:
        report = _write_report(open_run(run, "read"))
        if report is None:
            read_run(folder)
    click.echo(str(report))


@click.command("analyze")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=ADDRESS)
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option("--i-min", type=float, help="Information that a class needs, nats: for the lower bounds.")
@click.option("--i-clean", type=float, help="Information of one clean sample, nats: for the lower bounds.")
@click.option("--redundancy", type=float, default=1.0, show_default=True, help="r of the theory, in (0, 1].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def analyze_command(
    runs: tuple[Address, ...],
    split: str,
    i_min: float | None,
    i_clean: float | None,
    redundancy: float,
    as_json: bool,
) -> None:
    """Set runs against the theory: crossovers, the scaling law, bounds and their coverage, noise rates.

    \b
    Example:  ddnl analyze runs/denoise-symmetric
    """
    import pandas as pd

    from analysis.analyze import Facts, Information, analyze, to_json, to_text
    from ddnl_ray.errors import require_known
    from ddnl_ray.results import SPLITS, read_run
    from ddnl_ray.sweep.ledger import Ledger

    require_known("split", split, SPLITS)
    frames, facts = [], Facts()
    for run in dict.fromkeys(runs):
        with reading(run) as folder:
            Ledger(folder).consolidate()
            frames.append(read_run(folder))
            facts |= Facts.of(folder)
    found = analyze(pd.concat(frames, ignore_index=True), facts, Information(i_min, i_clean, redundancy), split)
    click.echo(json.dumps(to_json(found)) if as_json else to_text(found))


def _write_report(run: Folder) -> str | None:
    """Write the report of a run that has results; return where it is."""
    from analysis.report import write_report
    from ddnl_ray.sweep.ledger import Ledger

    frame = Ledger(run).consolidate()
    if frame is None:
        return None
    run.pull("trials", is_read)
    write_report(run.path, frame)
    figures = (path.relative_to(run.path).as_posix() for path in sorted((run.path / "figures").glob("*")))
    run.publish(*figures, "report.html")
    return run.named("report.html")


def _print_plan(plan: Plan, run: Folder, store: ExpertStore, as_json: bool) -> None:
    from ddnl_ray.sweep.estimate import estimate, estimate_text

    figures = estimate(plan, run, store)
    click.echo(json.dumps(figures) if as_json else estimate_text(plan, figures))


def _conclude(plan: Plan, ledger: Any, before: set[str], report: str | None, as_json: bool) -> None:
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
