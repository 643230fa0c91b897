"""Options and steps that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddnl_ray.storage.option import ADDRESS

if TYPE_CHECKING:
    from ddnl_ray.experts import ExpertStore
    from ddnl_ray.storage import Address, Folder
    from ddnl_ray.sweep.plan import Plan
    from ddnl_ray.sweep.schema import SweepFile


def sweep_options(command: Any) -> Any:
    """Add the options that read a sweep file."""
    command = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key.")(command)
    command = click.option("--profile", metavar="NAME", help="Apply a profile of the file.")(command)
    return click.argument("file", type=click.Path(path_type=Path))(command)


def store_option(command: Any) -> Any:
    """Add the option that names the expert store."""
    return click.option(
        "--store",
        type=ADDRESS,
        envvar="DDNL_STORE",
        default=Path("~/.cache/ddnl/experts"),
        show_default=True,
        help="Where expert buffers are kept: a folder, s3:// or gs:// (or DDNL_STORE).",
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
    command = click.option(
        "--out",
        type=ADDRESS,
        default=Path("runs"),
        show_default=True,
        help="Where runs are kept: a folder, s3:// or gs://.",
    )(command)
    return click.option("--name", help="Name of the run; default: the file's.")(command)


def read_plan(file: Path, profile: str | None, overrides: tuple[str, ...], name: str | None) -> Plan:
    """Read and check a sweep file (see :func:`ddnl_ray.sweep.plan.make_plan`)."""
    from ddnl_ray.sweep.plan import make_plan
    from ddnl_ray.sweep.read import read_sweep

    if name is not None:
        overrides = (*overrides, f"name={json.dumps(name)}")
    sweep: SweepFile = read_sweep(file, profile, overrides)
    return make_plan(sweep)


def open_store(address: Address, write: bool = False) -> ExpertStore:
    """Return the expert store at an address, after asking a remote one whether it can be read, or written too."""
    from ddnl_ray.experts import ExpertStore

    store = ExpertStore.at(address.expanduser() if isinstance(address, Path) else address)
    store.folder.check(write)
    return store


def open_run(address: Address, purpose: str, write: bool = False) -> Folder:
    """Return a run folder, after asking a remote one whether it can be read, or written too."""
    from ddnl_ray.storage import open_folder

    run = open_folder(address, purpose)
    run.check(write)
    return run


def write_run_report(run: Folder) -> str | None:
    """Write the report of a run that has results; return where it is."""
    from analysis.report import write_report
    from ddnl_ray.results import read_run
    from ddnl_ray.storage.reading import is_read
    from ddnl_ray.sweep.ledger import Ledger

    frame = Ledger(run).consolidate()
    if frame is None:
        if not run.exists("results.parquet"):
            return None
        frame = read_run(run.path)
    run.pull("trials", is_read)
    write_report(run.path, frame)
    made = (path for folder in ("figures", "tables") for path in sorted((run.path / folder).glob("*")))
    run.publish(*(path.relative_to(run.path).as_posix() for path in made), "report.html")
    return run.named("report.html")
