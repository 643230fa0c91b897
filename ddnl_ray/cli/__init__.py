"""The command line: ``ddnl``. Heavy packages are imported where they are used, so that help comes at once."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ddnl_ray import __version__
from ddnl_ray.cli import (
    audits,
    cards,
    catalogue,
    clusters,
    dashboards,
    machine,
    outcomes,
    published,
    runs,
    simulate,
    stores,
)
from ddnl_ray.errors import CorruptFileError, DdnlError, FaultError

WRONG_REQUEST, INTERRUPTED = 2, 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a disk says that takes no more."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ddnl")
def cli() -> None:
    """Dataset distillation with noisy labels, swept on Ray.

    \b
    Start with:  ddnl sweep sweeps/quickstart.yaml
    """


for command in (
    runs.sweep_command,
    simulate.simulate_command,
    runs.distill_command,
    runs.status_command,
    outcomes.table_command,
    outcomes.report_command,
    outcomes.analyze_command,
    published.compare_command,
    dashboards.dashboard_command,
    cards.show_command,
    cards.evaluate_command,
    cards.verify_command,
    cards.export_command,
    audits.noise_rate_command,
    stores.experts_group,
    stores.data_group,
    catalogue.sweeps_group,
    catalogue.recipe_group,
    clusters.cluster_group,
    machine.doctor_command,
):
    cli.add_command(command)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn our errors, and a disk that takes no more, into messages and exit codes."""
    try:
        yield
    except FaultError as error:
        click.echo(f"ddnl: {error}", err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" at {error.filename}" if error.filename else ""
        click.echo(
            f"ddnl: {error.strerror}{where}; free some, or name another --out or --store, and run the same command "
            "again: what has ended is kept",
            err=True,
        )
        sys.exit(INTERRUPTED)
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
