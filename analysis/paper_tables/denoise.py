"""The numbers behind the figures of the two denoising papers (Cheng et al.): accuracy by IPC beside all the data.

Both papers show curves only, so nothing is printed beside ours. Every method has a row for each noise rate or label
set, and one for its difference to training on all the data to the last epoch, which is the papers' dashed line.
"""

from __future__ import annotations

from collections.abc import Callable

from analysis.names import BASES, CORESETS, LABEL_SETS, noise_name
from analysis.paper_tables.layouts import (
    DATASETS,
    FULL,
    NAMES,
    Axes,
    Block,
    Grid,
    Head,
    Line,
    PaperTable,
    Spec,
    condition,
    method,
)

SHOWN = ("datm", "dance", "rcig")
METHODS = (*SHOWN, *(base for base in BASES if base not in ("full", *CORESETS, *SHOWN)))
"""The papers' three first, then whatever was run."""
LAST, BEST = Spec(best=False), Spec(best=True)
SETS = tuple((f"{dataset}n", labels) for dataset in ("cifar10", "cifar100") for labels in LABEL_SETS)


def _beside_full(base: str, label: str, spec: Spec) -> tuple[Line, Line]:
    own = spec | method(base)
    return Line(label, own), Line(f"{label}, minus full", own, base=FULL)


def _by_ipc(axes: Axes) -> tuple[Head, ...]:
    """Return training on all the data, then the IPCs; a row's method gives way to ``full`` in the first two."""
    full = ("Full data",)
    heads = (Head(full, "last epoch", FULL | LAST), Head(full, "early stopped", FULL | BEST))
    return (*heads, *(Head(("Images per class",), str(ipc), Spec(ipc=ipc)) for ipc in axes.ipcs))


def _rates(kind: str) -> Callable[[Axes], Grid]:
    def grid(axes: Axes) -> Grid:
        blocks = tuple(
            Block(
                f"{DATASETS[dataset]}, {NAMES.get(base, base)}",
                Spec(dataset=dataset),
                tuple(
                    line
                    for rate in ((0.0, *axes.rates) if kind == "symmetric" else axes.rates)
                    for line in _beside_full(
                        base, noise_name(kind if rate else "none", rate, None), condition(kind, rate)
                    )
                ),
            )
            for dataset in ("cifar10", "cifar100", "tinyimagenet")
            for base in METHODS
        )
        return Grid(blocks, _by_ipc(axes))

    return grid


def _natural(axes: Axes) -> Grid:
    blocks = tuple(
        Block(
            f"{DATASETS[dataset]}, {NAMES.get(base, base)}",
            Spec(dataset=dataset, noise="natural"),
            tuple(
                line
                for own, labels in SETS
                if own == dataset
                for line in _beside_full(base, labels, Spec(label_set=labels))
            ),
        )
        for dataset in ("cifar10n", "cifar100n")
        for base in METHODS
    )
    return Grid(blocks, _by_ipc(axes))


def _label_sets(axes: Axes) -> Grid:
    blocks = tuple(
        Block(
            f"{DATASETS[dataset]}, {labels}",
            Spec(dataset=dataset, noise="natural", label_set=labels),
            tuple(Line(NAMES.get(base, base), method(base)) for base in METHODS),
        )
        for dataset, labels in SETS
    )
    heads = [Head(("Full data",), name, FULL | reading) for name, reading in (("best", BEST), ("last", LAST))]
    for ipc in axes.ipcs:
        group = (f"IPC {ipc}",)
        heads += [Head(group, "best", Spec(ipc=ipc) | BEST), Head(group, "last", Spec(ipc=ipc) | LAST)]
    return Grid(blocks, tuple(heads))


def _figure(name: str, title: str, grid: Callable[[Axes], Grid], sweeps: tuple[str, ...]) -> PaperTable:
    axes = Axes(ipcs=(1, 10, 50, 500, 1000), rates=(0.2, 0.4, 0.6, 0.8))
    return PaperTable(
        paper="denoise",
        name=name,
        title=title,
        axes=axes,
        grid=grid,
        sweeps=sweeps,
        stub="Method" if grid is _label_sets else "Noise",
        all_axes=True,
    )


_DANCE = ("denoise_dance_cifar10.yaml", "denoise_dance_cifar100.yaml")
TABLES = (
    _figure(
        "symmetric",
        "Accuracy by images per class and rate of symmetric noise (in the wild: figure 2; theory: figures 3, 6 and 9).",
        _rates("symmetric"),
        ("denoise_symmetric.yaml", *_DANCE, "denoise_dance_tinyimagenet.yaml"),
    ),
    _figure(
        "asymmetric",
        "Accuracy by images per class and rate of asymmetric noise (in the wild: figure 4; theory: figures 4, 7, 10).",
        _rates("asymmetric"),
        ("denoise_asymmetric.yaml", *_DANCE),
    ),
    _figure(
        "natural",
        "Accuracy by images per class on human labels (in the wild: figure 5; theory: figure 5).",
        _natural,
        ("denoise_natural.yaml", *_DANCE),
    ),
    _figure(
        "label_sets",
        "Best and last accuracy by label set (theory: figure 8).",
        _label_sets,
        ("denoise_natural.yaml",),
    ),
)
