"""Commands that look at what runs have found: table, report, analyze."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddnl_ray.cli.shared import device_option, open_run, write_run_report
from ddnl_ray.storage.option import ADDRESS
from ddnl_ray.storage.reading import reading

if TYPE_CHECKING:
    from ddnl_ray.storage import Address

RIVALS = {"last": "none", "early_stopped": "early_stopped"}
"""Variant of full-data training, by its name on the command line."""


@click.command("table")
@click.argument("run", type=ADDRESS)
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option("--paper", metavar="NAME", help="Lay it out as tad, sgr_tiat, rdc or denoise has it.")
@click.option("--number", metavar="N", help="Its table: 1, figure2, symmetric, ...; default: all with a cell.")
@click.option("--md", "style", flag_value="md", help="Print Markdown.")
@click.option("--latex", "style", flag_value="latex", help="Print LaTeX.")
@click.option("--html", "style", flag_value="html", help="Print HTML.")
@click.option("--json", "style", flag_value="json", help="Print JSON.")
def table_command(run: Address, split: str, paper: str | None, number: str | None, style: str | None) -> None:
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
    with reading(run) as folder:
        Ledger(folder).consolidate()
        frame = read_run(folder)
        if paper is not None:
            click.echo(_paper_tables(folder, frame, split, paper, number, style), nl=False)
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
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=ADDRESS)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to; by default the run folder, and `report` in this folder for several runs.",
)
def report_command(runs: tuple[Address, ...], out: Path | None) -> None:
    """Write report.html, the figures and the papers' tables of a run again, or of several runs together.

    \b
    Example:  ddnl report runs/quickstart
              ddnl report runs/denoise-symmetric runs/denoise-natural --out denoise
    """
    from analysis.report import write_report
    from analysis.several import join
    from ddnl_ray.results import read_run

    runs = tuple(dict.fromkeys(runs))
    if len(runs) == 1 and out is None:
        with reading(runs[0]) as folder:
            report = write_run_report(open_run(runs[0], "read"))
            if report is None:
                read_run(folder)
        click.echo(str(report))
        return
    found = [(folder, read_run(folder)) for folder in map(_consolidated, runs)]
    click.echo(str(write_report(out or Path("report"), join(found), runs=found)))


@click.command("analyze")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=ADDRESS)
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option(
    "--rival", default="last", show_default=True, help="Training on all the data: last (epoch) or early_stopped."
)
@click.option("--measure", is_flag=True, help="First apply the nine estimators to each run: trains small networks.")
@click.option("--measure-epochs", type=int, default=30, show_default=True, help="Epochs of the reference network.")
@click.option("--measure-samples", type=int, default=2000, show_default=True, help="Held-out samples, at most.")
@click.option("--i-min", type=float, help="Information that a class needs, nats; default: as measured.")
@click.option("--i-clean", type=float, help="Information of one clean sample, nats; default: as measured.")
@click.option("--redundancy", type=float, help="r of the theory, in (0, 1]; default: as measured, else 1.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def analyze_command(
    runs: tuple[Address, ...],
    split: str,
    rival: str,
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
    from analysis.measure.record import FILE
    from analysis.several import join, read_facts
    from ddnl_ray.cli.measuring import MeasureRequest, measure_run
    from ddnl_ray.errors import require_known
    from ddnl_ray.results import SPLITS, read_run

    require_known("split", split, SPLITS)
    require_known("rival", rival, RIVALS)
    read = []
    for run in dict.fromkeys(runs):
        folder = _consolidated(run)
        read.append((folder, read_run(folder)))
        if measure:
            held = open_run(run, "read")
            held.pull("trials")  # the distilled sets, which reading leaves where they are
            measure_run(*read[-1], MeasureRequest(epochs=measure_epochs, samples=measure_samples, device=device))
            held.publish(FILE)
    found = analyze(join(read), read_facts(read), Information(i_min, i_clean, redundancy), split, RIVALS[rival])
    click.echo(json.dumps(to_json(found)) if as_json else to_text(found))


def _consolidated(run: Address) -> Path:
    """Return the folder to read a run from, with the table of all that has ended."""
    from ddnl_ray.sweep.ledger import Ledger

    with reading(run) as folder:
        Ledger(folder).consolidate()
        return folder
