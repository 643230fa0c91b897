"""What a finished sweep says: statistics, tables, figures, findings and the report.

The package reads the result table and the files of a run folder; it imports no part of the runtime. Every
function takes the frame of :func:`ddnl_ray.results.read_run`, so that one run, several concatenated runs and
a filtered frame are analysed in the same way. Numbers are claims with n: nothing here prints a mean without
the number of replicates behind it and the interval that they give.

Modules, in the order in which they build on each other: ``names`` (how things are called), ``statistics``
(intervals), ``scores`` (frame to samples), ``layout`` (texts to tables), then ``tables``, ``figures`` and
``findings``, and last ``report``. Beside them, ``published`` holds what papers print, ``protocol`` says why two numbers
are not comparable, and ``compare`` and ``compare_tables`` set runs beside a paper.

``theory`` (bounds on IPC, effective modes, noise-rate intervals, estimators of information) stands apart: functions of
numbers and arrays, which read nothing. ``fits`` sets the theory against the results of sweeps.
``noise_rate`` judges labels whose truth nobody knows, from held-out predictions.
"""
