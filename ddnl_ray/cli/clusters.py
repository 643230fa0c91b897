"""Commands about clusters: cluster check."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

UNSAFE = 2


@click.group("cluster")
def cluster_group() -> None:
    """Look at cluster files."""


@cluster_group.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_command(file: Path, as_json: bool) -> None:
    """Check a file for `ray up` before money is spent: is it valid, closed, and limited?

    Warnings are allowed; what fails ends with exit code 2. Nothing is started, and no cloud is called.

    \b
    Example:  ddnl cluster check cluster/cluster.yaml
    """
    import dataclasses

    from ddnl_ray.sweep.cluster import check_cluster

    findings = check_cluster(file)
    failed = sum(finding.severity == "fail" for finding in findings)
    if as_json:
        said = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"file": str(file), "ok": not failed, "findings": said}))
    else:
        for finding in findings:
            click.echo(f"{finding.severity}: {file}: {finding.place}: {finding.message} [{finding.rule}]")
        click.echo(f"{file}: {failed} failed, {len(findings) - failed} warnings")
    if failed:
        sys.exit(UNSAFE)
