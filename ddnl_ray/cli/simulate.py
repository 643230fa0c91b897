"""The command that says how long a sweep would take on a cluster."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from ddnl_ray.cli.shared import open_store, read_plan, store_option, sweep_options


@click.command("simulate")
@sweep_options
@store_option
@click.option(
    "--cluster",
    "described",
    metavar="CLUSTER",
    required=True,
    help="A YAML file, or pairs: gpus=64,preempt_per_hour=0.2,trial_s=1800.",
)
@click.option("--like", type=click.Path(path_type=Path), help="Take the durations of trials from this run.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the simulated ledger here; default: it is dropped.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate_command(
    file: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    store: Path,
    described: str,
    like: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say how long a sweep takes on a cluster, and how much of it: nothing is trained.

    \b
    Example:  ddnl simulate sweeps/tune_tad.yaml \\
                --cluster gpus=64,preempt_per_hour=0.1,trial_s=5400,expert_epoch_s=20
    """
    from ddnl_ray.sweep.simulate.cluster import read_cluster
    from ddnl_ray.sweep.simulate.run import simulate
    from ddnl_ray.sweep.simulate.say import recorded_durations, simulation_text
    from ddnl_ray.sweep.watcher import Silent

    cluster = read_cluster(described)
    plan = read_plan(file, profile, overrides, None)
    recorded = recorded_durations(like, plan) if like is not None else None
    with tempfile.TemporaryDirectory(prefix="ddnl-simulated-") as folder:
        run = out if out is not None else Path(folder) / plan.sweep.name
        found = simulate(plan, run, cluster, open_store(store), Silent(), recorded)
    click.echo(json.dumps(found) if as_json else simulation_text(found))
