"""Commands that look after what runs share: expert trajectories and data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddnl_ray.cli.shared import device_option, open_store, read_plan, store_option, sweep_options

if TYPE_CHECKING:
    from ddnl_ray.experts import Moved
    from ddnl_ray.storage import Address


@click.group("experts")
def experts_group() -> None:
    """Look after the store of expert trajectories."""


@experts_group.command("ls")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def experts_ls(store: Address, as_json: bool) -> None:
    """List the stored buffers.

    \b
    Example:  ddnl experts ls
    """
    import dataclasses
    import time

    experts = open_store(store)
    buffers = list(experts.buffers())
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(buffer) for buffer in buffers]))
        return
    for buffer in buffers:
        days = (time.time() - buffer.used_at) / 86400
        what = " ".join(str(buffer.about.get(key, "")) for key in ("dataset", "noise"))
        what += "".join(
            f" {name}" for name in ("tad", "sgr", "rdc", "tuned", "cleaned") if name in buffer.about.get("policy", {})
        )
        size = f"{buffer.num_bytes / 2**20:.1f} MiB"
        there = f"{buffer.experts:4d} experts to epoch {max(0, buffer.last_epoch):3d}"
        click.echo(f"{buffer.key}  {there}  {size:>12}  used {days:.1f} days ago  {what}")
    derived = experts.derived()
    if derived:
        click.echo(f"{len(derived)} derived, {sum(entry.num_bytes for entry in derived) / 2**20:.1f} MiB")
    total = sum(buffer.num_bytes for buffer in buffers) / 2**20
    click.echo(f"{len(buffers)} buffers, {total:.1f} MiB in {experts.folder.named()}")


@experts_group.command("build")
@sweep_options
@store_option
@device_option
@click.option("--rebuild", is_flag=True, help="Train corrupt experts again instead of refusing them.")
def experts_build(
    file: Path, profile: str | None, overrides: tuple[str, ...], store: Address, device: str, rebuild: bool
) -> None:
    """Train the experts that a sweep file needs and the store lacks, in this process.

    \b
    Example:  ddnl experts build sweeps/quickstart.yaml
    """
    from ddnl_ray.sweep.local import build_all

    plan, experts = read_plan(file, profile, overrides, None), open_store(store, write=True)
    for key, index in build_all(plan, experts, device, rebuild):
        click.echo(f"{key} expert {index}")


@experts_group.command("export")
@click.argument("keys", nargs=-1, metavar="KEY...")
@click.option("--all", "everything", is_flag=True, help="Export every buffer.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The archive to write.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def experts_export(keys: tuple[str, ...], everything: bool, out: Path, store: Address, as_json: bool) -> None:
    """Write buffers into one checked archive, for the store of another cluster.

    KEY is a name that `ddnl experts ls` shows, or the start of one.

    
    Example:  ddnl experts export 3f2a --out experts.tar
    """
    from ddnl_ray.experts import export_buffers

    experts = open_store(store)
    if bool(keys) == everything:
        raise click.UsageError("name the buffers to export (`ddnl experts ls` lists them), or use --all")
    found = [experts.find(key) for key in keys]
    if everything:
        found = [buffer.key for buffer in experts.buffers() if buffer.experts]
    _print_moved(out, export_buffers(experts, found, out), as_json)


@experts_group.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def experts_import(file: Path, store: Address, as_json: bool) -> None:
    """Check an archive that `ddnl experts export` wrote, and store what is not there yet.

    
    Example:  ddnl experts import experts.tar
    """
    from ddnl_ray.experts import import_archive

    _print_moved(file, import_archive(open_store(store, write=True), file), as_json)


def _print_moved(file: Path, moved: list[Moved], as_json: bool) -> None:
    """Say what went into an archive, or out of it."""
    import dataclasses

    if as_json:
        click.echo(json.dumps({"file": str(file), "buffers": [dataclasses.asdict(buffer) for buffer in moved]}))
        return
    for buffer in moved:
        there = f"; {buffer.skipped} segments were there already" if buffer.skipped else ""
        click.echo(f"{buffer.key}  {buffer.experts:4d} experts  {buffer.num_bytes / 2**20:10.1f} MiB{there}")
    click.echo(f"{len(moved)} buffers, {sum(b.num_bytes for b in moved) / 2**20:.1f} MiB: {file}")


@experts_group.command("gc")
@store_option
@click.option("--unused-days", type=float, default=30.0, show_default=True, help="Remove what no sweep used since.")
def experts_gc(store: Address, unused_days: float) -> None:
    """Remove buffers that no sweep has used for a while.

    Of a remote store, this machine's copies that were not read for as long go, too.

    \b
    Example:  ddnl experts gc --unused-days 7
    """
    experts = open_store(store, write=True)
    removed = experts.collect(unused_days)
    for buffer in removed:
        click.echo(f"removed {buffer.key} ({buffer.num_bytes / 2**20:.1f} MiB)")
    click.echo(f"{len(removed)} buffers removed")
    for entry in experts.collect_derived(unused_days):
        click.echo(f"removed {entry.name.rsplit('/', 1)[1]}")
    freed = experts.collect_copies(unused_days)
    if freed:
        click.echo(f"removed {freed / 2**20:.1f} MiB of copies from {experts.root}")


@click.group("data")
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
