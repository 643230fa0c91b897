"""The tables of RDC (Kim and Song, 2025): condensation with supervised contrast; its "asymmetric" is ``pairflip``."""

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

TWO_STAGE = "two_stage_dividemix"
KINDS = {"pairflip": "Asymmetric", "symmetric": "Symmetric"}
RATES = (0.2, 0.4)
HUMAN = {"cifar10": {"random1": "Ran1 (17 %)", "worse": "Worse (40 %)"}, "cifar100": {"fine": "Noisy (40 %)"}}
CONFIGURATIONS = {
    "(1) SSL": "none",
    "(2) SupCon wo. augment": "supcon_plain",
    "(3) SupCon w. augment": "supcon",
    "(4) Golden MixUp contrast": "paper",
}
"""Table 5: what is added to IDM, with ``rdc.gmc``."""
NETWORKS = {"convnet3": "ConvNet", "vgg11": "VGG11", "resnet18": "ResNet18"}


def _resnet(dataset: str) -> str:
    return "resnet18"


def _conditions(dataset: str, rates: tuple[float, ...]) -> list[tuple[tuple[str, ...], Spec]]:
    """Return the kinds of noise of a data set, each with its headings."""
    found: list[tuple[tuple[str, ...], Spec]] = [(("Clean", "0 %"), Spec(noise="none"))]
    found += [((name, percentage(rate)), condition(kind, rate)) for kind, name in KINDS.items() for rate in rates]
    natural = Spec(dataset=f"{dataset}n", noise="natural")
    for labels, name in HUMAN.get(dataset, {}).items():
        found.append((("Real-world", name), natural | Spec(label_set=labels)))
    return found


def _robustness(dataset: str, base: str, axes: Axes, rates: tuple[float, ...] = RATES) -> Grid:
    """Return the layout that tables 1 to 4 share."""
    name = NAMES[base]
    lines = (
        Line("Random", method("random")),
        Line(name, method(base)),
        *pair(base, name, f"{name} + two-stage", TWO_STAGE),
        *pair(base, name, f"{name} + RDC", "rdc"),
        Line("Whole dataset", FULL),
    )
    heads = tuple(
        Head(groups, f"IPC {ipc}", spec | Spec(ipc=ipc))
        for groups, spec in _conditions(dataset, rates)
        for ipc in axes.ipcs
    )
    return Grid((Block("", Spec(dataset=dataset), lines),), heads)


def _table1(axes: Axes) -> Grid:
    return _robustness("cifar10", "idm", axes)


def _table2(axes: Axes) -> Grid:
    return _robustness("cifar100", "idm", axes)


def _table3(axes: Axes) -> Grid:
    return _robustness("tinyimagenet", "idm", axes, RATES[1:])


def _table4(axes: Axes) -> Grid:
    return _robustness("cifar10", "accdd", axes)


def _table5(axes: Axes) -> Grid:
    lines = [Line("IDM", method("idm"))]
    for label, value in CONFIGURATIONS.items():
        own, difference = pair("idm", "IDM", label.partition(" ")[0], "rdc", (("rdc.gmc", value),))
        lines += [Line(f"+ {label}", own.spec), difference]
    columns = [
        *((name, condition(kind, RATES[1])) for kind, name in KINDS.items()),
        ("Real-world", Spec(dataset="cifar10n", noise="natural", label_set="worse")),
    ]
    heads = tuple(Head((name,), f"IPC {ipc}", spec | Spec(ipc=ipc)) for name, spec in columns for ipc in axes.ipcs)
    return Grid((Block("", Spec(dataset="cifar10"), tuple(lines)),), heads)


def _table6(axes: Axes) -> Grid:
    rows = tuple(Line(name, Spec(eval_backbone=network)) for network, name in NETWORKS.items())
    common = condition("pairflip", RATES[1]) | Spec(dataset="cifar10")
    blocks = tuple(Block(f"IPC {ipc}", common | Spec(ipc=ipc), rows) for ipc in axes.ipcs)
    heads = []
    for network in axes.networks:
        groups, spec = (f"Distilled with {NETWORKS.get(network, network)}",), Spec(backbone=network)
        with_rdc = spec | method("idm", "rdc")
        heads += [
            Head(groups, "IDM", spec | method("idm")),
            Head(groups, "IDM + RDC", with_rdc),
            Head(groups, "IDM + RDC − IDM", with_rdc, base=method("idm")),
        ]
    return Grid(blocks, tuple(heads))


def _table(number: int, title: str, axes: Axes, sweeps: tuple[str, ...]) -> PaperTable:
    grids = (_table1, _table2, _table3, _table4, _table5, _table6)
    return PaperTable(
        paper="rdc",
        name=f"table{number}",
        number=number,
        title=title,
        axes=axes,
        grid=grids[number - 1],
        sweeps=sweeps,
        network=_resnet,
        stub="Trained network" if number == 6 else "Method",
    )


TABLES = (
    _table(1, "IDM with and without RDC on CIFAR-10 and CIFAR-10N.", Axes((10, 50)), ("rdc_table1.yaml",)),
    _table(2, "IDM with and without RDC on CIFAR-100 and CIFAR-100N.", Axes((1, 10)), ("rdc_table2.yaml",)),
    _table(3, "IDM with and without RDC on Tiny-ImageNet.", Axes((1, 10)), ("rdc_table3.yaml",)),
    _table(4, "Acc-DD with and without RDC on CIFAR-10 and CIFAR-10N.", Axes((10,)), ("rdc_table4.yaml",)),
    _table(5, "The ablation of RDC on IDM, under 40 % of three kinds of noise.", Axes((10,)), ("rdc_table5.yaml",)),
    _table(
        6,
        "Sets distilled with one network, trained on by others; CIFAR-10 under 40 % asymmetric noise.",
        Axes((50,), networks=("vgg11", "resnet18")),
        ("rdc_table6_vgg11.yaml", "rdc_table6_resnet18.yaml"),
    ),
)
