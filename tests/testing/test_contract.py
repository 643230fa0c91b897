"""Every method of the registry keeps the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ddnl_ray.distill import METHODS
from ddnl_ray.distill.att import Att, AttConfig
from ddnl_ray.distill.coresets import Full, FullConfig, Random, RandomConfig
from ddnl_ray.distill.datm import Datm, DatmConfig
from ddnl_ray.distill.ftd import Ftd, FtdConfig
from ddnl_ray.distill.mtt import Mtt, MttConfig
from ddnl_ray.distill.tesla import Tesla, TeslaConfig
from ddnl_ray.testing import MethodContract

TRAJECTORY: dict[str, Any] = {
    "iterations": 4,
    "syn_steps": 3,
    "max_start_epoch": 4,
    "batch_syn": 4,
    "lr_img": 10.0,
    "lr_lr": 1e-4,
    "lr_teacher": 0.05,
}


class TestMtt(MethodContract):
    method = Mtt
    config = MttConfig(**TRAJECTORY)


class TestMttFromNoise(MethodContract):
    method = Mtt
    config = MttConfig(**TRAJECTORY, pix_init="noise")


class TestFtd(MethodContract):
    method = Ftd
    config = FtdConfig(**TRAJECTORY, ema_decay=0.9)


class TestAtt(MethodContract):
    method = Att
    config = AttConfig(**TRAJECTORY, ema_decay=0.9)


class TestTesla(MethodContract):
    method = Tesla
    config = TeslaConfig(**TRAJECTORY)


class TestTeslaWithTheTeachersLabels(MethodContract):
    method = Tesla
    config = TeslaConfig(**TRAJECTORY, teacher_label=True)


DATM = TRAJECTORY | {"lr_y": 5.0, "threshold": 10.0, "current_max_start_epoch": 1, "expansion_end_epoch": 3}


class TestDatm(MethodContract):
    method = Datm
    config = DatmConfig(**DATM)


class TestDatmFromRandomImages(MethodContract):
    method = Datm
    config = DatmConfig(**DATM, pix_init="real")


class TestRandom(MethodContract):
    method = Random
    config = RandomConfig()


class TestFull(MethodContract):
    method = Full
    config = FullConfig()
    ipc = None
    draws = False


def test_every_method_is_under_contract() -> None:
    """A method that joins the registry needs a class, with a small configuration: above, or where it is tested."""
    own = [value for name, value in globals().items() if name.startswith("Test")]
    assert all(type(contract.config) is METHODS[contract.method.name].config for contract in own)
    for name in set(METHODS) - {contract.method.name for contract in own}:
        kind = METHODS[name]
        text = (Path(__file__).parents[1] / "distill" / f"test_{name}.py").read_text()
        under = rf"\(MethodContract\):\n(?:    .*\n)*?    method = {kind.method.__name__}\n"
        assert re.search(under, text), f"{name} is under no contract"
