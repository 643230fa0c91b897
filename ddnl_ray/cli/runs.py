"""Commands that make runs and say how far they are: sweep, distill, status."""

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
    write_run_report,
)
from ddnl_ray.storage.option import ADDRESS

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
            report = write_run_report(run)
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
        report = write_run_report(run)
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


def _print_plan(plan: Plan, run: Folder, store: ExpertStore, as_json: bool) -> None:
    from ddnl_ray.sweep.estimate import estimate, estimate_text

    figures = estimate(plan, run, store)
    click.echo(json.dumps(figures) if as_json else estimate_text(plan, figures))


def _conclude(plan: Plan, ledger: Any, before: set[str], report: str | None, as_json: bool) -> None:
    """Print how a sweep ended, write the summary, and exit with 1 where a trial failed or never started."""
    from ddnl_ray.sweep.status import conclude

    summary, failed = conclude(plan, ledger, before, report)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(f"{summary['done']} of {summary['trials']} trials done ({summary['cached']} were there before)")
        for result in failed:
            click.echo(f"{result.outcome}: {result.trial}: {result.message}", err=True)
        for cell in summary["not_done"]:
            click.echo(f"not done: {cell}: a time budget ended first; the same command goes on", err=True)
        click.echo(f"results: {summary['results']}\nreport:  {summary['report']}")
    if failed or summary["not_done"]:
        sys.exit(FAILED_CELLS)
