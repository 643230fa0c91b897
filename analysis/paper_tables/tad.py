"""The tables of TAD (Wu et al., 2025): trajectory methods with and without diversion of untrusted samples.

Table 1 prints training on all the data without noise only, once for a data set; here it has a row under every noise.
Without noise the paper prints a method once for itself and for itself with TAD.
"""

from __future__ import annotations

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
    pair,
    percentage,
)

RATES = (0.0, 0.2, 0.4)
TABLE1_METHODS = ("mtt", "ftd", "datm", "att")
TABLE2_METHODS = ("mtt", "ftd", "datm", "att")
"""DATM is not in the paper's table, and stands where the order of its other tables has it."""
TABLE4_METHODS = ("mtt", "ftd", "att")
NOISES = {
    "cifar10": ("symmetric", "asymmetric"),
    "cifar100": ("symmetric", "asymmetric"),
    "tinyimagenet": ("symmetric",),
}
LABEL_SETS = {"cifar10n": ("worse", "Worst"), "cifar100n": ("fine", "Fine")}
CONFIGURATIONS = {
    "B": ("Reg.", 0.1, "none"),
    "C": ("OL.", 0.0, "outer"),
    "D": ("Reg. + OL.", 0.1, "outer"),
    "E": ("OL. + IL.", 0.0, "both"),
    "F": ("Reg. + OL. + IL.", 0.1, "both"),
}
"""Table 3: what is on, with the weight of the consistency term and the loops."""
CLEANERS = {"c2d": "+ C2D", "l2b_dividemix": "+ L2B-DivideMix"}


def _lines(bases: tuple[str, ...]) -> tuple[Line, ...]:
    """Return every method, itself with TAD, and the difference."""
    return tuple(
        line
        for base in bases
        for line in (Line(NAMES[base], method(base)), *pair(base, NAMES[base], f"{NAMES[base]} + TAD", "tad"))
    )


def _table1(axes: Axes) -> Grid:
    lines = (*_lines(TABLE1_METHODS), Line("Full dataset", FULL))
    blocks = tuple(
        Block(f"{DATASETS[dataset]}, {noise} noise", Spec(dataset=dataset, noise=noise), lines)
        for dataset, noises in NOISES.items()
        for noise in noises
    )
    heads = tuple(
        Head((f"IPC {ipc}",), percentage(rate), Spec(ipc=ipc, rate=rate)) for ipc in axes.ipcs for rate in RATES
    )
    return Grid(blocks, heads)


def _table2(axes: Axes) -> Grid:
    lines = (*_lines(TABLE2_METHODS), Line("Full dataset", FULL))
    blocks = tuple(
        Block(f"{DATASETS[dataset]} ({name})", Spec(dataset=dataset, noise="natural", label_set=labels), lines)
        for dataset, (labels, name) in LABEL_SETS.items()
    )
    return Grid(blocks, tuple(Head((), f"IPC {ipc}", Spec(ipc=ipc)) for ipc in axes.ipcs))


def _table3(axes: Axes) -> Grid:
    lines = [Line("A: DATM", method("datm"))]
    for name, (parts, weight, loops) in CONFIGURATIONS.items():
        settings = (("tad.consistency_weight", weight), ("tad.loops", loops))
        own, difference = pair("datm", "A", name, "tad", settings)
        lines += [Line(f"{name}: {parts}", own.spec), difference]
    block = Block("CIFAR-10, asymmetric noise", Spec(dataset="cifar10"), tuple(lines))
    heads = tuple(
        Head((f"IPC {ipc}",), f"Asym. {percentage(rate)}", condition("asymmetric", rate) | Spec(ipc=ipc))
        for ipc in axes.ipcs
        for rate in RATES[1:]
    )
    return Grid((block,), heads)


def _table4(axes: Axes) -> Grid:
    lines: list[Line] = []
    for base in TABLE4_METHODS:
        lines.append(Line(NAMES[base], method(base)))
        for variant, label in (*CLEANERS.items(), ("tad", "+ TAD")):
            lines += pair(base, NAMES[base], f"{NAMES[base]} {label}", variant)
    block = Block("CIFAR-100, symmetric noise", Spec(dataset="cifar100"), tuple(lines))
    heads = tuple(
        Head((f"IPC {ipc}",), f"Sym. {percentage(rate)}", condition("symmetric", rate) | Spec(ipc=ipc))
        for ipc in axes.ipcs
        for rate in RATES[1:]
    )
    return Grid((block,), heads)


TABLES = (
    PaperTable(
        paper="tad",
        name="table1",
        number=1,
        title="Trajectory methods with and without TAD under symmetric and asymmetric noise.",
        axes=Axes(ipcs=(1, 10, 50)),
        grid=_table1,
        sweeps=("tad_table1_cifar10.yaml", "tad_table1_cifar100.yaml", "tad_table1_tinyimagenet.yaml"),
    ),
    PaperTable(
        paper="tad",
        name="table2",
        number=2,
        title="Trajectory methods with and without TAD on human labels.",
        axes=Axes(ipcs=(1, 10, 50)),
        grid=_table2,
        sweeps=("tad_table2_cifar10n.yaml", "tad_table2_cifar100n.yaml"),
    ),
    PaperTable(
        paper="tad",
        name="table3",
        number=3,
        title="The ablation of TAD on DATM: consistency term (Reg.), outer loop (OL.) and inner loop (IL.).",
        axes=Axes(ipcs=(50,)),
        grid=_table3,
        sweeps=("tad_table3.yaml",),
    ),
    PaperTable(
        paper="tad",
        name="table4",
        number=4,
        title="TAD beside cleaning the labels before distillation.",
        axes=Axes(ipcs=(10, 50)),
        grid=_table4,
        sweeps=("tad_table4.yaml",),
    ),
)
