"""From a sweep's budget to how one of its trials runs."""

from __future__ import annotations

import math

from ddnl_ray.sweep.schema import SweepFile
from ddnl_ray.sweep.studies import Job
from ddnl_ray.trial import Options


def trial_options(sweep: SweepFile, job: Job, deadline: float = math.inf) -> Options:
    """Return how a trial of a sweep runs that must end by a deadline (seconds since 1970)."""
    budget = sweep.budget
    return Options(
        run=sweep.name,
        cell=job.cell.name,
        trial=job.trial,
        graph_memory=budget.graph_memory_mb * 2**20,
        checkpoint_s=budget.checkpoint_seconds,
        limit_s=min(budget.trial_seconds or math.inf, job.limit_s),
        deadline=deadline,
        rungs=job.rungs,
    )
