"""Commands that set runs beside what papers print: compare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ddnl_ray.storage.option import ADDRESS
from ddnl_ray.storage.reading import reading

if TYPE_CHECKING:
    from ddnl_ray.storage import Address


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=ADDRESS)
@click.option("--paper", required=True, metavar="NAME", help="tad, sgr_tiat or rdc.")
@click.option("--all", "with_all", is_flag=True, help="Show z also where the numbers are not comparable.")
@click.option("--md", "style", flag_value="md", help="Print Markdown.")
@click.option("--latex", "style", flag_value="latex", help="Print LaTeX.")
@click.option("--json", "style", flag_value="json", help="Print JSON.")
def compare_command(runs: tuple[Address, ...], paper: str, with_all: bool, style: str | None) -> None:
    """Set the accuracies of runs beside those that a paper prints, and say what is not comparable and why.

    \b
    Example:  ddnl compare runs/tad-table1-cifar10 --paper tad
    """
    from analysis.compare import Run, compare
    from analysis.compare_tables import to_json, to_latex, to_markdown, to_text
    from analysis.published import COMPARED
    from ddnl_ray.errors import require_known
    from ddnl_ray.results import read_run
    from ddnl_ray.sweep.ledger import Ledger
    from ddnl_ray.sweep.protocol import protocol_of

    require_known("paper", paper, COMPARED)
    found = []
    for run in dict.fromkeys(runs):
        with reading(run) as folder:
            Ledger(folder).consolidate()
            found.append(Run(str(run), read_run(folder), protocol_of(folder)))
    comparison = compare(found, paper, with_all=with_all)
    if style == "json":
        click.echo(json.dumps(to_json(comparison)))
    else:
        click.echo({"md": to_markdown, "latex": to_latex, None: to_text}[style](comparison), nl=False)
