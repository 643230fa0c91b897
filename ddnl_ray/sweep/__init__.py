"""The sweep runtime: sweep files, plans, studies, the ledger, and their execution on Ray.

Reading and planning a sweep needs no Ray; only :mod:`ddnl_ray.sweep.runtime`, :mod:`ddnl_ray.sweep.shared` and
:mod:`ddnl_ray.sweep.driver` import it.
"""
