"""The sweep runtime: sweep files, plans, studies, the ledger, and their execution on Ray.

Reading and planning a sweep needs no Ray. What runs one imports it, and
:mod:`ddnl_ray.sweep.cluster`, which asks Ray what it thinks of a cluster file.
"""
