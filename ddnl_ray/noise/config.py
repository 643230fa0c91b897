"""Which label noise: the closed, validated description that a sweep file gives."""

from __future__ import annotations

from dataclasses import dataclass

from ddnl_ray.errors import RequestError, require_known
from ddnl_ray.files import digest
from ddnl_ray.noise.asymmetric import DEFAULT_MAPS, MAPS
from ddnl_ray.noise.transition import validate_transition

KINDS = ("none", "symmetric", "asymmetric", "pairflip", "natural", "transition")
LABEL_SETS = ("aggre", "random1", "random2", "random3", "worse", "fine")

_ALLOWED: dict[str, tuple[str, ...]] = {
    "none": (),
    "symmetric": ("rate",),
    "asymmetric": ("rate", "map"),
    "pairflip": ("rate",),
    "natural": ("labels", "file"),
    "transition": ("file", "matrix"),
}
_REQUIRED = {"symmetric": "rate", "asymmetric": "rate", "pairflip": "rate", "natural": "labels"}


@dataclass(frozen=True)
class NoiseConfig:
    """One label-noise model.

    Attributes:
        kind: ``none`` (labels as given), ``symmetric``, ``asymmetric`` (the semantic map of the data set),
            ``pairflip`` (class i to i + 1), ``natural`` (human labels of CIFAR-N) or ``transition`` (any
            matrix).
        rate: Probability that a label of an affected class is flipped, in ``[0, 1)``; for symmetric,
            asymmetric and pairflip.
        map: Asymmetric only. CIFAR-10: ``ddlnl`` (default) or ``tad``; CIFAR-100: ``superclass`` (default) or
            ``ddlnl_compat``.
        labels: Natural only. ``aggre``, ``random1``, ``random2``, ``random3``, ``worse`` (CIFAR-10N) or
            ``fine`` (CIFAR-100N).
        file: Natural: the label file, where it is not in the data folder. Transition: the matrix as .json,
            .csv or .npy.
        matrix: Transition only: the matrix itself, rows true class.

    Raises:
        RequestError: A name is unknown, the rate is out of its range, or an option is missing or belongs to
            another kind.
    """

    kind: str = "none"
    rate: float | None = None
    map: str | None = None
    labels: str | None = None
    file: str | None = None
    matrix: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        require_known("noise kind", self.kind, KINDS)
        options = ("rate", "map", "labels", "file", "matrix")
        given = [name for name in options if getattr(self, name) is not None]
        for name in given:
            if name not in _ALLOWED[self.kind]:
                takes = ", ".join(_ALLOWED[self.kind]) or "no options"
                raise RequestError(
                    f"noise of kind {self.kind} has no {name}, but got {name}: {getattr(self, name)}; it takes {takes}"
                )
        required = _REQUIRED.get(self.kind)
        if required is not None and required not in given:
            example = "0.4" if required == "rate" else f"one of {', '.join(LABEL_SETS)}"
            raise RequestError(f"noise of kind {self.kind} needs {required}, as in {required}: {example}")
        if self.rate is not None and not 0 <= self.rate < 1:
            raise RequestError(f"noise rate must be in [0, 1), but got {self.rate}")
        if self.map is not None:
            require_known("asymmetric map", self.map, MAPS)
        if self.labels is not None:
            require_known("label set", self.labels, LABEL_SETS)
        if self.kind == "transition" and len(given) != 1:
            raise RequestError(
                f"noise of kind transition needs either file or matrix, but got {' and '.join(given) or 'neither'}"
            )
        if self.matrix is not None:
            validate_transition(self.matrix)

    def slug(self) -> str:
        """Return a short name that differs between different noise models, for example ``symmetric-0.6``.

        Naming the default map explicitly does not change it. A matrix is named by its content; a matrix file,
        which is not read here, by its path.
        """
        parts = [self.kind]
        if self.rate is not None:
            parts.append(repr(float(self.rate)))
        if self.map is not None and self.map not in DEFAULT_MAPS.values():
            parts.append(self.map)
        if self.labels is not None:
            parts.append(self.labels)
        if self.kind == "transition":
            rows = None if self.matrix is None else [[float(cell) for cell in row] for row in self.matrix]
            parts.append(digest(rows or self.file)[:8])
        return "-".join(parts)
