"""How methods, noise settings and numbers are written for people, and the order in which they are listed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

NOISES = ("none", "symmetric", "asymmetric", "pairflip", "natural")
LABEL_SETS = ("aggre", "random1", "random2", "random3", "worse", "fine")
BASES = (
    *("full", "random", "herding"),
    *("mtt", "ftd", "tesla", "datm", "att", "dm", "dsa", "idm", "accdd", "dance", "rcig"),
)
CORESETS = ("random", "herding")
EARLY_STOPPED = "early_stopped"
NOT_AVAILABLE = "–"

_ROBUST = ("tad", "sgr", "tiat", "rdc")
_TWO_STAGE = "two_stage_"
_DENOISER_VARIANTS = {"c2d": "c2d", "l2b_dividemix": "l2b"}
_SPLITS = {
    "test": "the test set",
    "val_noisy": "val_noisy (held-out data with noisy labels)",
    "val_clean": "val_clean (held-out data with clean labels)",
}


def rank(name: str | None, order: Sequence[str]) -> tuple[int, str]:
    """Return a sort key: known names in their order, then unknown ones by alphabet."""
    text = name or ""
    return (order.index(text) if text in order else len(order), text)


def method_name(base_method: str, variant: str) -> str:
    """Return the method string of a (base method, variant) pair of the result table.

    Args:
        base_method: For example ``"datm"``.
        variant: For example ``"none"``, ``"sgr_tiat"``, ``"two_stage_dividemix"`` or ``"early_stopped"``.

    Returns:
        For example ``"datm"``, ``"datm+sgr+tiat"``, ``"dividemix>datm"``, ``"full (early stopped)"``.
    """
    if base_method == "full":
        rest = variant.removesuffix(EARLY_STOPPED)
        when = "last epoch" if rest == variant else "early stopped"
        return f"{_with_variant(base_method, rest.removesuffix('_') or 'none')} ({when})"
    return _with_variant(base_method, variant)


def early_stopped(variant: str) -> str:
    """Return the variant of training on all the data that stops early, of that which does not."""
    return EARLY_STOPPED if variant == "none" else f"{variant}_{EARLY_STOPPED}"


def _with_variant(base_method: str, variant: str) -> str:
    if variant == "none":
        return base_method
    if variant.startswith(_TWO_STAGE):
        return f"{variant.removeprefix(_TWO_STAGE)}>{base_method}"
    if variant in _DENOISER_VARIANTS:
        return f"{_DENOISER_VARIANTS[variant]}>{base_method}"
    parts = variant.split("_")
    return "+".join([base_method, *parts]) if set(parts) <= set(_ROBUST) else f"{base_method}+{variant}"


def rate_name(rate: float | None) -> str:
    """Return a noise rate as a percentage, for example ``"30 %"``."""
    return "" if rate is None else f"{100 * rate:.4g} %"


def noise_name(noise: str, rate: float | None, label_set: str | None) -> str:
    """Return a noise setting in words: ``"no noise"``, ``"symmetric 30 %"`` or ``"natural (worse)"``."""
    if noise == "none":
        return "no noise"
    if label_set is not None:
        return f"{noise} ({label_set})"
    return f"{noise} {rate_name(rate)}".strip()


def split_name(split: str) -> str:
    """Return what a split is, for example ``"val_noisy (held-out data with noisy labels)"``."""
    return _SPLITS.get(split, split)


def percent(fraction: float, signed: bool = False) -> str:
    """Return a fraction in per cent with one decimal and a true minus sign; a dash for not-a-number.

    A signed value that one decimal would make zero keeps two, so that its sign can be seen.
    """
    if math.isnan(fraction):
        return NOT_AVAILABLE
    decimals = 2 if signed and abs(fraction) < 0.0005 else 1
    value = round(100 * fraction, decimals) + 0.0  # + 0.0: no negative zero
    return f"{value:{'+' if signed and value else ''}.{decimals}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Return a duration in the two largest units that fit, for example ``"2 h 10 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """Return ``"1 cell"``, ``"3 cells"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(parts: Iterable[str]) -> str:
    """Return ``"a"``, ``"a and b"``, ``"a, b and c"``."""
    items = list(parts)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
