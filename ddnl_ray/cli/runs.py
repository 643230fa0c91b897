"""Commands that make runs and look at them: sweep, distill, status, table, report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddnl_ray.cli.shared import device_option, open_store, read_plan, run_options, store_option, sweep_options

if TYPE_CHECKING:
    from ddnl_ray.experts import ExpertStore
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

    plan = read_plan(file, profile, overrides, name)
    run, experts = out / plan.sweep.name, open_store(store)
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

    plan = read_plan(file, profile, overrides, name)
    run = out / plan.sweep.name
    ledger = Ledger(run)
    with ledger.lock(), StatusWatcher(Console(stderr=True)) as watcher:
        before = ledger.settled()
        run_one(plan, run, open_store(store), device, watcher, rebuild)
        report = _write_report(run)
    _conclude(plan, ledger, before, report, as_json)


@click.command("status")
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


@click.command("table")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option("--paper", metavar="NAME", help="Lay it out as tad, sgr_tiat, rdc or denoise has it.")
@click.option("--number", metavar="N", help="Its table: 1, figure2, symmetric, ...; default: all with a cell.")
@click.option("--md", "style", flag_value="md", help="Print Markdown.")
@click.option("--latex", "style", flag_value="latex", help="Print LaTeX.")
@click.option("--html", "style", flag_value="html", help="Print HTML.")
@click.option("--json", "style", flag_value="json", help="Print JSON.")
def table_command(run: Path, split: str, paper: str | None, number: str | None, style: str | None) -> None:
    """Print the accuracies of a run: n, mean and 95 % interval of every setting.

    \b
    Example:  ddnl table runs/quickstart --md
              ddnl table runs/tad-table1-cifar10 --paper tad --number 1
    """
    from analysis.tables import accuracy_table, to_html, to_json, to_latex, to_markdown, to_text
    from ddnl_ray.errors import RequestError, require_known
    from ddnl_ray.results import SPLITS, read_run
    from ddnl_ray.sweep.ledger import Ledger

    require_known("split", split, SPLITS)
    if number is not None and paper is None:
        raise RequestError(f"--number {number} is of a paper: add --paper tad, sgr_tiat, rdc or denoise")
    Ledger(run).consolidate()
    frame = read_run(run)
    if paper is not None:
        click.echo(_paper_tables(run, frame, split, paper, number, style), nl=False)
        return
    table = accuracy_table(frame, split)
    if style == "json":
        click.echo(json.dumps(to_json(table)))
    else:
        styles = {"md": to_markdown, "latex": to_latex, "html": to_html, None: to_text}
        click.echo(styles[style](table))


def _paper_tables(run: Path, frame: Any, split: str, paper: str, number: str | None, style: str | None) -> str:
    """Return one table of a paper, or all of which the run has a cell (all, where it has none)."""
    from analysis import paper_tables

    wanted = [paper_tables.named(paper, number)] if number is not None else paper_tables.tables_of(paper)
    sources = paper_tables.sources_of([(run, frame)], split)
    found = [paper_tables.fill(table, sources, split) for table in wanted]
    found = [filled for filled in found if filled.cells] or found
    if style == "json":
        return json.dumps([paper_tables.to_json(filled) for filled in found]) + "\n"
    layouts = [paper_tables.layout(filled) for filled in found]
    texts = {"md": "markdown", "latex": "latex", "html": "html", None: "text"}
    return "\n".join(getattr(layout, texts[style])() for layout in layouts)


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to; by default the run folder, and `report` in this folder for several runs.",
)
def report_command(runs: tuple[Path, ...], out: Path | None) -> None:
    """Write report.html, the figures and the papers' tables of a run again, or of several runs together.

    \b
    Example:  ddnl report runs/quickstart
              ddnl report runs/denoise-symmetric runs/denoise-natural --out denoise
    """
    from analysis.report import write_report
    from analysis.several import join
    from ddnl_ray.results import read_run
    from ddnl_ray.sweep.ledger import Ledger

    found = []
    for run in dict.fromkeys(runs):
        Ledger(run).consolidate()
        found.append((run, read_run(run)))
    folder = out or (found[0][0] if len(found) == 1 else Path("report"))
    click.echo(str(write_report(folder, join(found), runs=found)))


@click.command("analyze")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option("--measure", is_flag=True, help="First apply the nine estimators to each run: trains small networks.")
@click.option("--measure-epochs", type=int, default=30, show_default=True, help="Epochs of the reference network.")
@click.option("--measure-samples", type=int, default=2000, show_default=True, help="Held-out samples, at most.")
@click.option("--i-min", type=float, help="Information that a class needs, nats; default: as measured.")
@click.option("--i-clean", type=float, help="Information of one clean sample, nats; default: as measured.")
@click.option("--redundancy", type=float, help="r of the theory, in (0, 1]; default: as measured, else 1.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def analyze_command(
    runs: tuple[Path, ...],
    split: str,
    measure: bool,
    measure_epochs: int,
    measure_samples: int,
    i_min: float | None,
    i_clean: float | None,
    redundancy: float | None,
    device: str,
    as_json: bool,
) -> None:
    """Set runs against the theory: crossovers, the scaling law, bounds and their coverage, noise rates.

    With --measure, information.json in each run folder keeps what the nine estimators found, for this command, the
    report and the figures; what is there already is not made again.

    \b
    Example:  ddnl analyze runs/denoise-symmetric --measure
    """
    from analysis.analyze import Information, analyze
    from analysis.analyze_output import to_json, to_text
    from analysis.several import join, read_facts
    from ddnl_ray.cli.measuring import MeasureRequest, measure_run
    from ddnl_ray.errors import require_known
    from ddnl_ray.results import SPLITS, read_run
    from ddnl_ray.sweep.ledger import Ledger

    require_known("split", split, SPLITS)
    read = []
    for run in dict.fromkeys(runs):
        Ledger(run).consolidate()
        read.append((run, read_run(run)))
        if measure:
            measure_run(*read[-1], MeasureRequest(epochs=measure_epochs, samples=measure_samples, device=device))
    found = analyze(join(read), read_facts(read), Information(i_min, i_clean, redundancy), split)
    click.echo(json.dumps(to_json(found)) if as_json else to_text(found))


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
