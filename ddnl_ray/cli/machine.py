"""The command that examines this machine: doctor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddnl_ray.cli.shared import store_option
from ddnl_ray.storage.option import ADDRESS

if TYPE_CHECKING:
    from ddnl_ray.storage import Address

FAILED = 1


@click.command("doctor")
@click.option("--no-ray", is_flag=True, help="Do not start Ray.")
@click.option("--out", type=ADDRESS, default=Path("runs"), show_default=True, help="Where runs will be kept.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor_command(no_ray: bool, out: Address, store: Address, as_json: bool) -> None:
    """Say whether this machine can run sweeps, and what to do where it cannot.

    It looks at Python, torch, GPUs, shared memory, disks and the clock, and starts and stops Ray. Exit codes: 0 sweeps
    can run (there may be warnings), 1 something must be put right first.

    \b
    Example:  ddnl doctor --no-ray
    """
    import dataclasses

    from ddnl_ray.storage.connect import cache_of
    from ddnl_ray.sweep.doctor import Places, examine

    runs = out if isinstance(out, Path) else cache_of(out, "drive")
    experts = store if isinstance(store, Path) else cache_of(store, "experts")
    found = []
    for finding in examine(Places(runs, experts), with_ray=not no_ray):
        found.append(finding)
        if not as_json:
            click.echo(f"{finding.state:<5} {finding.name}: {finding.said}")
            if finding.remedy:
                click.echo(f"      {finding.remedy}")
    failed = sum(finding.state == "fail" for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [dataclasses.asdict(finding) for finding in found]}))
    if failed:
        sys.exit(FAILED)
