"""Commands that say what ships with the package: sweeps ls, recipe show."""

from __future__ import annotations

import json
from typing import Any

import click

CLOSE = 24


@click.group("sweeps")
def sweeps_group() -> None:
    """Look at the sweep files that come with ddnl-ray."""


@sweeps_group.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sweeps_ls(as_json: bool) -> None:
    """List the shipped sweep files: what each is, how many cells it has, and its profiles.

    They lie in the folder sweeps/ of the repository, and are not installed with the package: where that is not beside
    the package, it is looked for in the current folder.

    \b
    Example:  ddnl sweeps ls
    """
    from ddnl_ray.sweep.shipped import shipped_sweeps, sweeps_folder

    folder = sweeps_folder()
    found = shipped_sweeps(folder)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "sweeps": found}))
        return
    for each in found:
        profiles = f"; profiles: {', '.join(each['profiles'])}" if each["profiles"] else ""
        click.echo(f"{each['file']:<{CLOSE}} {each['cells']:5d} cells{profiles}\n    {each['about']}")
    click.echo(f"{len(found)} sweep files in {folder}")


@click.group("recipe")
def recipe_group() -> None:
    """Look at the settings that sweeps start from."""


@recipe_group.command("show")
@click.argument("method")
@click.argument("dataset")
@click.argument("ipc", type=int)
@click.option("--noise", metavar="KIND:RATE", default="none", show_default=True, help="As in symmetric:0.4.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipe_show(method: str, dataset: str, ipc: int, noise: str, as_json: bool) -> None:
    """Print every setting of a method on a data set at an IPC, and where it comes from.

    \b
    Example:  ddnl recipe show datm+tad cifar10 10 --noise symmetric:0.4
    """
    from ddnl_ray.sweep.settings import settings_of

    found = settings_of(method, dataset, ipc, noise)
    if as_json:
        said: dict[str, Any] = {"method": method, "dataset": dataset, "ipc": ipc, "noise": noise}
        click.echo(json.dumps({**said, "settings": found}))
        return
    sources = list(dict.fromkeys(each["source"] for each in found))
    widest = max(len(each["name"]) for each in found)
    for source in sources:
        click.echo(f"{source}:")
        for each in found:
            if each["source"] == source:
                click.echo(f"  {each['name']:<{widest}}  {json.dumps(each['value'])}")
