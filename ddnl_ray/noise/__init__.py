"""Label noise: which labels a distiller is given, and how wrong they are."""

from ddnl_ray.noise.apply import apply_noise, nominal_transition
from ddnl_ray.noise.config import KINDS, LABEL_SETS, NoiseConfig
from ddnl_ray.noise.labels import NoisyLabels
from ddnl_ray.noise.transition import sample, validate_transition

__all__ = [
    "KINDS",
    "LABEL_SETS",
    "NoiseConfig",
    "NoisyLabels",
    "apply_noise",
    "nominal_transition",
    "sample",
    "validate_transition",
]
