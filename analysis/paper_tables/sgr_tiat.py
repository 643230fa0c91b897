"""The tables and figures of SGR and TIAT (ICLR 2026 submission): reweighted experts and teacher-inspired targets."""

from __future__ import annotations

from analysis.paper_tables.layouts import (
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

RATES = (0.2, 0.4)
KINDS = ("symmetric", "asymmetric")
BOTH = "SGR + TIAT"
BETAS = (0.1, 0.5, 1.0)
SUBSETS = (0.5, 0.6, 0.7)
DEFAULT = (("tiat.beta", 0.1), ("tiat.subset", 0.6))


def _heads(axes: Axes, kinds: tuple[str, ...]) -> tuple[Head, ...]:
    """Return kind, rate and IPC of synthetic noise."""
    return tuple(
        Head((kind.capitalize(), percentage(rate)), f"IPC {ipc}", condition(kind, rate) | Spec(ipc=ipc))
        for kind in kinds
        for rate in RATES
        for ipc in axes.ipcs
    )


def _human(axes: Axes, dataset: str, label_set: str) -> tuple[Head, ...]:
    """Return the IPCs on human labels."""
    spec = Spec(dataset=dataset, noise="natural", label_set=label_set)
    return tuple(Head(("Human labels", label_set), f"IPC {ipc}", spec | Spec(ipc=ipc)) for ipc in axes.ipcs)


def _beside_rivals(axes: Axes, dataset: str, label_set: str) -> Grid:
    """Return DATM with both beside other methods and training on all the data."""
    rivals = (Line(NAMES[base], method(base)) for base in ("rcig", "dance", "datm"))
    lines = (Line("Full dataset", FULL), *rivals, *pair("datm", "DATM", f"DATM + {BOTH}", "sgr_tiat"))
    heads = (*_heads(axes, KINDS), *_human(axes, f"{dataset}n", label_set))
    return Grid((Block("", Spec(dataset=dataset), lines),), heads)


def _table1(axes: Axes) -> Grid:
    return _beside_rivals(axes, "cifar100", "fine")


def _figure2(axes: Axes) -> Grid:
    return _beside_rivals(axes, "cifar10", "worse")


def _table2(axes: Axes) -> Grid:
    lines = (
        Line("DATM", method("datm")),
        *pair("datm", "DATM", "DATM + SGR", "sgr"),
        *pair("datm", "DATM", "DATM + TIAT", "tiat"),
        *pair("datm", "DATM", f"DATM + {BOTH}", "sgr_tiat"),
    )
    return Grid((Block("", Spec(dataset="cifar10"), lines),), _heads(axes, KINDS[:1]))


def _table3(axes: Axes) -> Grid:
    lines: list[Line] = []
    for beta in BETAS:
        for subset in SUBSETS:
            settings = (("tiat.beta", beta), ("tiat.subset", subset))
            label = f"β {beta:g}, subset {percentage(subset)}"
            own = method("datm", "sgr_tiat", settings)
            lines.append(Line(label, own))
            if settings != DEFAULT:
                lines.append(Line(f"{label} − default", own, base=method("datm", "sgr_tiat", DEFAULT)))
    return Grid((Block("", Spec(dataset="cifar10"), tuple(lines)),), _heads(axes, KINDS[:1]))


def _figure3(axes: Axes) -> Grid:
    diverse, fixed = (method("datm", "sgr_tiat", (("sgr.sampling", name),)) for name in ("diverse", "fixed"))
    lines = (
        Line("DATM", method("datm")),
        Line("Fixed", fixed),
        Line("Diverse", diverse),
        Line("Diverse − fixed", diverse, base=fixed),
    )
    return Grid((Block("", Spec(dataset="cifar10"), lines),), _heads(axes, KINDS[:1]))


TABLES = (
    PaperTable(
        paper="sgr_tiat",
        name="table1",
        number=1,
        title="DATM with SGR and TIAT beside other methods, on CIFAR-100 and CIFAR-100N.",
        axes=Axes(ipcs=(10, 50, 100)),
        grid=_table1,
        sweeps=("sgr_tiat_table1.yaml",),
    ),
    PaperTable(
        paper="sgr_tiat",
        name="table2",
        number=2,
        title="The ablation: DATM with SGR, with TIAT and with both, on CIFAR-10.",
        axes=Axes(ipcs=(10, 50, 500, 1000)),
        grid=_table2,
        sweeps=("sgr_tiat_table2.yaml",),
    ),
    PaperTable(
        paper="sgr_tiat",
        name="table3",
        number=3,
        title="The weight of the second target (β) and the share of the reliable subset, on CIFAR-10.",
        axes=Axes(ipcs=(50,)),
        grid=_table3,
        sweeps=("sgr_tiat_table3.yaml",),
    ),
    PaperTable(
        paper="sgr_tiat",
        name="figure2",
        title="DATM with SGR and TIAT beside other methods, on CIFAR-10 and CIFAR-10N.",
        axes=Axes(ipcs=(10, 50, 500)),
        grid=_figure2,
        sweeps=("sgr_tiat_figure2.yaml",),
    ),
    PaperTable(
        paper="sgr_tiat",
        name="figure3",
        title="Limits of the neighbours' share that differ between experts, or do not.",
        axes=Axes(ipcs=(10, 50)),
        grid=_figure3,
        sweeps=("sgr_tiat_figure3.yaml",),
    ),
)
