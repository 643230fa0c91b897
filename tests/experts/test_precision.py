"""What float32 means on a GPU while experts train, and that nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ddnl_ray.errors import RequestError
from ddnl_ray.experts import ExpertRecipe
from ddnl_ray.experts.precision import PRECISIONS, products, require_precision
from ddnl_ray.models import NetworkSpec

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def settings() -> tuple[str, str]:
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return torch.backends.cuda.matmul.fp32_precision, conv.fp32_precision


@pytest.fixture(params=[("none", "tf32"), ("ieee", "ieee"), ("tf32", "ieee")])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """What a user has set."""
    own, conv = settings(), torch.backends.cudnn.conv  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision, conv.fp32_precision = request.param
    yield request.param
    torch.backends.cuda.matmul.fp32_precision, conv.fp32_precision = own


@pytest.mark.parametrize(("precision", "inside"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")])
def test_products_are_set_inside_and_restored(before: tuple[str, str], precision: str, inside: str) -> None:
    with products(precision, CUDA):
        assert settings() == (inside, inside)
    assert settings() == before


def test_products_are_restored_after_an_error(before: tuple[str, str]) -> None:
    with pytest.raises(KeyboardInterrupt), products("tf32", CUDA):
        raise KeyboardInterrupt
    assert settings() == before


def test_a_cpu_needs_no_setting(before: tuple[str, str]) -> None:
    with products("float32", CPU):
        assert settings() == before


def test_tf32_needs_a_gpu() -> None:
    for precision in PRECISIONS:
        require_precision(precision, "cuda:1")
        if precision != "tf32":
            require_precision(precision, CPU)
    with pytest.raises(RequestError, match=r"^experts\.precision: tf32 needs an NVIDIA GPU, .* train on the cpu"):
        require_precision("tf32", "cpu")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^unknown expert precision 'bf16': did you mean 'bfloat16'\?"):
        ExpertRecipe(network=NetworkSpec("convnet1"), precision="bf16")
