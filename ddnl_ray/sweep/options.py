"""From a sweep's budget to how one of its trials runs."""

from __future__ import annotations

import math

from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.sweep.studies import Job
from ddnl_ray.trial import Options


def trial_options(sweep: SweepFile, job: Job) -> Options:
    """Return how a trial of a sweep runs."""
    budget = sweep.budget
    return Options(
        run=sweep.name,
        cell=job.cell.name,
        trial=job.trial,
        graph_memory=budget.graph_memory_mb * 2**20,
        checkpoint_s=budget.checkpoint_seconds,
        limit_s=budget.trial_seconds or math.inf,
        rungs=job.rungs,
    )
