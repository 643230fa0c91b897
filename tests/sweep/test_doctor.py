"""What `ddnl doctor` says of a machine; Ray itself is played."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from ddnl_ray.cli import cli
from ddnl_ray.errors import RequestError
from ddnl_ray.sweep import doctor
from ddnl_ray.sweep.doctor import Finding, Places, examine

Usage = namedtuple("Usage", "total used free")
NAMES = ["python", "torch", "gpu", "shared memory", "experts", "runs", "ray's disk", "clock", "ray"]


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def disk_of(monkeypatch: pytest.MonkeyPatch, total: float, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(total), int(total - free), int(free)))


def played(monkeypatch: pytest.MonkeyPatch, session: Any) -> None:
    monkeypatch.setattr("ddnl_ray.sweep.runtime.ray_session", session)


def test_a_sound_machine_is_ok_and_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    disk_of(monkeypatch, 1e12, 5e11)
    found = list(examine(Places(tmp_path / "runs", tmp_path / "store", tmp_path), with_ray=False))
    assert [finding.name for finding in found] == NAMES
    assert {finding.state for finding in found} == {"ok"}
    assert not any(finding.remedy for finding in found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "state"), [(5e11, "ok"), (5e9, "warn"), (1e8, "fail")])
def test_disks_are_large_enough_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str
) -> None:
    disk_of(monkeypatch, 1e12, free)
    finding = only(doctor.disk("experts", tmp_path / "a" / "b", "--store"))
    assert finding.state == state
    assert f"{free / 1e9:.1f} GB free for {tmp_path / 'a' / 'b'}" in finding.said
    assert (finding.remedy != "") == (state != "ok")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    finding = only(doctor.disk("runs", tmp_path, "--out"))
    assert (finding.state, finding.remedy) == ("fail", "change its permissions, or name another folder (--out)")


def test_a_folder_that_refuses_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    finding = only(doctor.disk("runs", tmp_path, "--out"))
    assert (finding.state, finding.said) == ("fail", f"{tmp_path} cannot be written to: Permission denied")


def test_small_shared_memory_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 64e6, 64e6)
    finding = only(doctor.shared_memory(tmp_path))
    assert (finding.state, "--shm-size=" in finding.remedy) == ("warn", True)
    monkeypatch.undo()
    assert only(doctor.shared_memory(tmp_path / "nowhere")).state == "warn"


def test_a_full_disk_of_ray_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 1e12, 4e10)
    assert only(doctor.ray_disk(tmp_path)).state == "warn"
    disk_of(monkeypatch, 1e12, 6e10)
    assert only(doctor.ray_disk(tmp_path)).state == "ok"


def test_clocks_that_differ_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(doctor.clock(tmp_path)).state == "ok"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    finding = only(doctor.clock(tmp_path))
    assert (finding.state, "3600 s away" in finding.said or "3599 s away" in finding.said) == ("warn", True)
    monkeypatch.setattr(time, "gmtime", lambda *_: SimpleNamespace(tm_year=1970))
    assert only(doctor.clock(tmp_path)).state == "fail"
    assert list(tmp_path.iterdir()) == []


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert only(doctor.python()).state == "fail"


def test_a_torchvision_of_another_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr("torchvision.ops.nms", missing)
    finding = only(doctor.torch_and_vision())
    assert finding.state == "fail"
    assert finding.said.endswith(
        f"does not go with torch {torch.__version__}: operator torchvision::nms does not exist"
    )


@pytest.mark.parametrize(("built", "said"), [(None, "this torch is without CUDA"), ("13.0", "torch cannot use a GPU")])
def test_a_driver_without_a_usable_gpu_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, built: str | None, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    finding = only(doctor.devices())
    assert (finding.state, said in finding.said, finding.remedy != "") == ("warn", True, True)


def test_ray_is_started_asked_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []

    @contextmanager
    def session(address: str | None, cpus: int, gpus: int, log: Path) -> Iterator[Any]:
        events.append(("start", address, cpus, gpus))
        yield SimpleNamespace(
            remote=lambda task: SimpleNamespace(remote=task),
            get=lambda value, timeout: value,
            cluster_resources=lambda: {"object_store_memory": 2e9},
        )
        events.append("stop")

    played(monkeypatch, session)
    finding = only(doctor.ray_starts())
    assert (finding.state, finding.said.endswith("; object store 2.0 GB")) == ("ok", True)
    assert events == [("start", None, 1, 0), "stop"]


@pytest.mark.parametrize("error", [RequestError("no token"), RuntimeError("GCS is gone\nand more"), TimeoutError()])
def test_a_ray_that_does_not_start_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def session(*_: object) -> Any:
        raise error

    played(monkeypatch, session)
    finding = only(doctor.ray_starts())
    assert finding.state == "fail"
    assert finding.remedy
    assert "\n" not in finding.said


def test_the_command_ends_with_1_where_something_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["doctor", "--no-ray", "--out", str(tmp_path / "runs"), "--store", str(tmp_path / "store")]
    disk_of(monkeypatch, 1e12, 5e11)
    ended = CliRunner().invoke(cli, [*arguments, "--json"])
    assert ended.exit_code == 0, ended.output
    said = json.loads(ended.stdout)
    assert (said["ok"], [each["name"] for each in said["findings"]][-1]) == (True, "ray")
    assert set(said["findings"][0]) == {"name", "state", "said", "remedy"}
    disk_of(monkeypatch, 1e12, 1e8)
    ended = CliRunner().invoke(cli, arguments)
    assert ended.exit_code == 1
    lines = ended.stdout.splitlines()
    place = next(row for row, line in enumerate(lines) if line.startswith("fail  experts: 0.1 GB free"))
    assert lines[place + 1] == "      free some, or name a folder of a larger disk (--store or DDNL_STORE)"
