"""``python -m analysis.figures RUN... [--out DIR]``: every figure that the runs can give, as svg, pdf and png."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from analysis.analyze import Information
from analysis.figures.catalogue import Material, catalogue
from analysis.scores import select_on
from analysis.tables import selection_sentence
from ddnl_ray.errors import CorruptFileError, DdnlError, require_known
from ddnl_ray.results import SPLITS

WRONG_REQUEST = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to; by default `figures` in the run folder, and in this folder for several runs.",
)
@click.option("--split", default="test", show_default=True, help="test, val_noisy or val_clean.")
@click.option("--i-min", type=float, help="Information that a class needs, nats; default: as measured.")
@click.option("--i-clean", type=float, help="Information of one clean sample, nats; default: as measured.")
@click.option("--redundancy", type=float, help="r of the theory, in (0, 1]; default: as measured, else 1.")
def main(
    runs: tuple[Path, ...],
    out: Path | None,
    split: str,
    i_min: float | None,
    i_clean: float | None,
    redundancy: float | None,
) -> None:
    r"""Write every figure that the results of the runs can give; what they cannot is said.

    \b
    Example:  python -m analysis.figures runs/denoise-symmetric runs/denoise-natural --out figures
    """
    try:
        require_known("split", split, SPLITS)
        material = Material.read(runs)
        found = catalogue(material, split, information=Information(i_min, i_clean, redundancy))
    except (DdnlError, CorruptFileError, ValueError) as error:
        click.echo(f"figures: {error}", err=True)
        sys.exit(WRONG_REQUEST)
    folder = out or (material.runs[0][0] / "figures" if len(material.runs) == 1 else Path("figures"))
    for entry in found.entries:
        paths = entry.save(folder)
        if not paths:
            click.echo(f"{entry.name}: skipped. {entry.reason}")
            continue
        click.echo(f"{entry.name}: {paths[0]} {' '.join(path.suffix for path in paths[1:])}")
        for note in entry.notes:
            click.echo(f"  {note}")
    click.echo(selection_sentence(select_on(material.frame)))


if __name__ == "__main__":
    main(prog_name="python -m analysis.figures")
