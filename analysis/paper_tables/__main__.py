"""``python -m analysis.paper_tables RUN... [--out DIR]``: the tables of the papers that the runs can fill."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from analysis.paper_tables.catalogue import PAPER_TABLES, read_sources, tables_of, write_tables
from ddnl_ray.errors import CorruptFileError, DdnlError

WRONG_REQUEST = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--paper", metavar="NAME", help=f"Only the tables of one paper: {', '.join(PAPER_TABLES)}.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to; by default `tables` in the run folder, and in this folder for several runs.",
)
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
def main(runs: tuple[Path, ...], paper: str | None, out: Path | None, split: str) -> None:
    r"""Write every table of the papers of which the runs have a cell; what they cannot fill is said.

    \b
    Example:  python -m analysis.paper_tables runs/tad-table1-cifar10 runs/tad-table3 --paper tad --out tables
    """
    try:
        tables_of(paper)
        sources = read_sources(runs, split)
        folder = out or (runs[0] / "tables" if len(sources) == 1 else Path("tables"))
        found = write_tables(sources, folder, paper, split)
    except (DdnlError, CorruptFileError, OSError) as error:
        click.echo(f"paper_tables: {error}", err=True)
        sys.exit(WRONG_REQUEST)
    for table in found:
        if table.paths:
            click.echo(f"{table.name}: {table.paths[0]} {' '.join(path.suffix for path in table.paths[1:])}")
        else:
            click.echo(f"{table.name}: skipped. {table.reason}")


if __name__ == "__main__":
    main(prog_name="python -m analysis.paper_tables")
