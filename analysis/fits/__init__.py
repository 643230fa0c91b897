"""Fits of a finished sweep: what practice says about the theory of distillation from noisy labels.

Pure functions of result frames and arrays; nothing is printed and no file is read. A result that does not exist is
an object whose ``reason`` says why in a sentence, never an exception: a sweep with failed cells, one seed, one rate
or no ``full`` baseline is analysed as far as it goes.

Modules, in the order in which they build on each other: ``resample`` (bootstrap and random numbers), ``series``
(frame to accuracies by IPC), ``crossover``, ``saturating`` and ``curves``, then ``censored`` and ``scaling``,
``coverage``, ``rates``, and, on their own, ``nested`` and ``families``.
"""
