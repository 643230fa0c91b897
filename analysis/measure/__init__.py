"""The nine estimators of I_min, I_clean and r on a real run, and what the scaling law is compared with.

``values`` applies the estimators to arrays, ``record`` keeps the outcome as ``information.json`` in the run folder, and
``ratios`` combines it. The networks behind the arrays are trained elsewhere (:mod:`ddnl_ray.reference`).
"""
