"""The sweep file: its keys and its defaults."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    """A closed, immutable section of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


GPU_EXPERTS = 8
"""Experts that train together on a GPU, where the file does not say."""


class DataSection(_Section):
    """Which images."""

    name: str = "digits"
    root: str | None = None
    labels: str | None = None
    size: int | None = None
    subset: int | None = None
    test_subset: int | None = None
    val_fraction: float = 0.1
    zca: bool | Literal["relative"] | None = None
    split_seed: int = 0
    download: bool = False


class NoiseSection(_Section):
    """One or several noise settings of one kind: lists make one cell each."""

    kind: str = "none"
    rate: float | list[float] | None = None
    labels: str | list[str] | None = None
    map: str | None = None
    file: str | None = None


class GridSection(BaseModel):
    """Every combination is a cell; dotted keys (``datm.threshold``) are grid axes over a method's parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    noise: list[NoiseSection] = Field(default_factory=lambda: [NoiseSection()], min_length=1)
    method: list[str] = Field(min_length=1)
    ipc: list[int] = Field(default_factory=lambda: [10], min_length=1)
    noise_seed: list[int] = Field(default_factory=lambda: [0], min_length=1)
    seed: list[int] = Field(default_factory=lambda: [0], min_length=1)

    @property
    def parameters(self) -> dict[str, list[Any]]:
        """The dotted axes."""
        return dict(self.model_extra or {})


class SpaceSection(_Section):
    """The range of one searched parameter; exactly one key."""

    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    int_uniform: tuple[int, int] | None = None
    choice: list[Any] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SpaceSection:
        given = {name: value for name, value in self if value is not None}
        if len(given) != 1:
            raise ValueError(
                f"a range needs exactly one of {', '.join(type(self).model_fields)}, but got {list(given)}"
            )
        (name, value), *_ = given.items()
        if name == "choice":
            if not value:
                raise ValueError("choice needs at least one value")
        elif not value[0] < value[1]:
            raise ValueError(f"{name} needs low < high, but got {list(value)}")
        if name == "log_uniform" and value[0] <= 0:
            raise ValueError(f"log_uniform needs low > 0, but got {value[0]}")
        return self


class SearchSection(_Section):
    """One Optuna study per cell."""

    trials: int = Field(default=1, ge=1)
    space: dict[str, SpaceSection] = Field(default_factory=dict)
    select_on: Literal["val_noisy", "val_clean", "test"] = "val_noisy"
    sampler: Literal["tpe", "random"] = "tpe"
    parallel: int = Field(default=4, ge=1)


class TrainingSection(_Section):
    """Changes to how networks are trained when a set is evaluated; absent: the recipe's."""

    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    cutmix: float | None = None
    schedule: str | None = None
    checkpoints: int | None = None


class FullSection(TrainingSection):
    """Training on the whole noisy set."""

    repeats: int = Field(default=1, ge=1)


class EvaluateSection(TrainingSection):
    """Which networks score a set, and how often."""

    networks: list[str] | None = None
    repeats: int = Field(default=5, ge=1)
    full: FullSection = FullSection()


class ExpertsSection(_Section):
    """Changes to how experts are trained; absent: the recipe's."""

    lr: float | None = None
    batch_size: int | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    optimizer: str | None = None
    rho: float | None = None
    alpha: float | None = None
    precision: str | None = None
    cutmix: float | None = None
    schedule: str | None = None
    schedule_epochs: int | None = None
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    at_once: int | None = Field(default=None, ge=1)

    def group_size(self, on_gpu: bool) -> int:
        """Return how many experts train together: by default as many as keep a GPU busy, and on a CPU one per core."""
        return self.at_once or (GPU_EXPERTS if on_gpu else 1)


class ExtractorSection(_Section):
    """Changes to how the self-supervised extractor is trained; absent: the data set's."""

    network: str | None = None
    width: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None


class CleanerSection(_Section):
    """Changes to the network that cleaners train, and with it C2D's extractor; absent: the recipe's."""

    network: str | None = None
    width: int | None = None


class BudgetSection(_Section):
    """How much to spend; absent: the recipe's full size, and no limit of time."""

    experts: int | None = Field(default=None, ge=1)
    expert_epochs: int | None = Field(default=None, ge=1)
    iterations: int | None = Field(default=None, ge=1)
    eval_epochs: int | None = Field(default=None, ge=1)
    full_epochs: int | None = Field(default=None, ge=1)
    eval_every: int = Field(default=0, ge=0)
    trial_seconds: float | None = Field(default=None, gt=0)
    cell_seconds: float | None = Field(default=None, gt=0)
    sweep_seconds: float | None = Field(default=None, gt=0)
    checkpoint_seconds: float = Field(default=30.0, gt=0)
    graph_memory_mb: int = Field(default=512, ge=0)


class ModelSection(_Section):
    """The backbone; absent: the recipe's."""

    name: str | None = None
    width: int | None = None


class ResourcesSection(_Section):
    """What one trial takes, and how many run at once at most."""

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0)
    max_concurrent: int | None = Field(default=None, ge=1)


class StopperSection(_Section):
    """Successive halving among the trials of one cell."""

    kind: Literal["asha"]
    grace: int = Field(ge=1)
    reduction_factor: int = Field(default=3, ge=2)


class SweepFile(_Section):
    """A sweep as the user wrote it, with a profile and ``--set`` applied."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: DataSection = DataSection()
    grid: GridSection
    params: dict[str, Any] = Field(default_factory=dict)
    search: SearchSection = SearchSection()
    evaluate: EvaluateSection = EvaluateSection()
    experts: ExpertsSection = ExpertsSection()
    extractor: ExtractorSection = ExtractorSection()
    cleaner: CleanerSection = CleanerSection()
    budget: BudgetSection = BudgetSection()
    model: ModelSection = ModelSection()
    resources: ResourcesSection = ResourcesSection()
    stopper: StopperSection | None = None
