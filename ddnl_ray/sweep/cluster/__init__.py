"""Looking at a cluster file before money is spent: what ``ray up`` would start, and whether it is safe.

Nothing here starts Ray or talks to a cloud; only :mod:`ddnl_ray.sweep.cluster.check` imports Ray, where it is used.
"""

from ddnl_ray.sweep.cluster.check import check_cluster
from ddnl_ray.sweep.cluster.findings import Finding, Severity

__all__ = ["Finding", "Severity", "check_cluster"]
