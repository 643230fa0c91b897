"""Whether this machine can run sweeps: what is installed, its memory and disks, and whether Ray starts."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"
MIN_PYTHON = (3, 11)
MIN_SHARE = 0.3
"""Part of the memory that Ray gives the object store by default, if shared memory holds as much."""
LOW_DISK, NO_DISK = 20e9, 1e9
FULL_DISK = 0.95
"""From here on Ray writes no more objects to a disk."""
LOW_GPU = 4e9
MAX_SKEW_S = 5.0
FIRST_YEAR = 2025
RAY_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        name: What was looked at.
        state: ``ok``, ``warn`` or ``fail``.
        said: What was found.
        remedy: What to do about it; empty where all is well.
    """

    name: str
    state: str
    said: str
    remedy: str = ""


@dataclass(frozen=True)
class Places:
    """Which folders of this machine are used.

    Attributes:
        runs: Where runs are kept.
        store: Where experts are kept.
        shared: The file system of shared memory.
    """

    runs: Path
    store: Path
    shared: Path = Path("/dev/shm")


def examine(places: Places, with_ray: bool = True) -> Iterator[Finding]:
    """Yield what is found, one thing after the other; nothing is left behind.

    Args:
        places: The folders that will be used.
        with_ray: Whether Ray is started, and stopped again.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        python,
        torch_and_vision,
        devices,
        lambda: shared_memory(places.shared),
        lambda: disk("experts", places.store, "--store or DDNL_STORE"),
        lambda: disk("runs", places.runs, "--out"),
        lambda: ray_disk(Path(tempfile.gettempdir())),
        lambda: clock(places.runs),
    ]
    if with_ray:
        checks.append(ray_starts)
    for check in checks:
        yield from check()
    if not with_ray:
        yield Finding("ray", OK, "not started, as asked")


def python() -> Iterator[Finding]:
    """Look at Python itself."""
    said = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < MIN_PYTHON:
        yield Finding("python", FAIL, said, "ddnl-ray needs 3.11 or later; make the environment with one")
    else:
        yield Finding("python", OK, said)


def torch_and_vision() -> Iterator[Finding]:
    """Look at whether torch and torchvision are there, and were built for each other."""
    remedy = "install both from one place, for example  pip install --force-reinstall torch torchvision"
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", FAIL, f"cannot be imported: {error}", remedy)
        return
    try:
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torchvision.ops.nms(boxes, torch.ones(1), 0.5)  # compiled: fails where it was built for another torch
    except (ImportError, OSError, RuntimeError, AttributeError, NotImplementedError) as error:
        said = f"torchvision {_version('torchvision')} does not go with torch {torch.__version__}: {_first(error)}"
        yield Finding("torch", FAIL, said, remedy)
        return
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield Finding("torch", OK, f"{torch.__version__} ({cuda}), torchvision {torchvision.__version__}")


def devices() -> Iterator[Finding]:
    """Look at the GPUs, and at why there are none."""
    try:
        import torch
    except (ImportError, OSError):
        return  # said before
    has_driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    if not torch.cuda.is_available():
        if not has_driver:
            yield Finding("gpu", OK, f"none; {os.cpu_count()} CPU cores")
        elif torch.version.cuda is None:
            remedy = "install a torch with CUDA, as pytorch.org says for this driver"
            yield Finding("gpu", WARN, "there is an NVIDIA driver, but this torch is without CUDA", remedy)
        else:
            remedy = (
                f"check nvidia-smi: the driver must be new enough for CUDA {torch.version.cuda}, and "
                "CUDA_VISIBLE_DEVICES must not hide the GPUs"
            )
            yield Finding("gpu", WARN, "there is an NVIDIA driver, but torch cannot use a GPU", remedy)
        return
    for index in range(torch.cuda.device_count()):
        try:
            free, total = torch.cuda.mem_get_info(index)
            torch.ones(1, device=f"cuda:{index}").add_(1)
        except RuntimeError as error:
            yield Finding(f"gpu {index}", FAIL, _first(error), "end what holds it (nvidia-smi), or leave it out")
            continue
        said = f"{torch.cuda.get_device_name(index)}, {_gb(free)} of {_gb(total)} free"
        if free < LOW_GPU:
            yield Finding(f"gpu {index}", WARN, said, "end what uses it (nvidia-smi shows what)")
        else:
            yield Finding(f"gpu {index}", OK, said)


def shared_memory(place: Path) -> Iterator[Finding]:
    """Look at where Ray keeps objects: shared memory, by default as large as 30 % of the memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        usage = shutil.disk_usage(place)
    except (OSError, ValueError):
        yield Finding("shared memory", WARN, f"{place} is not there", "Ray keeps its objects on a disk, which is slow")
        return
    wanted = MIN_SHARE * memory
    said = f"{_gb(usage.free)} of {_gb(usage.total)} free in {place}; Ray's object store takes up to {_gb(wanted)}"
    if usage.free < wanted:
        remedy = (
            f"Ray falls back to a disk where the store does not fit: give a container --shm-size={wanted / 1e9:.0f}g, "
            f"or enlarge it (mount -o remount,size={wanted / 1e9:.0f}g {place})"
        )
        yield Finding("shared memory", WARN, said, remedy)
    else:
        yield Finding("shared memory", OK, said)


def disk(name: str, place: Path, option: str) -> Iterator[Finding]:
    """Look at whether a folder can be written to, and how much its disk takes."""
    folder = _existing(place.expanduser())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ddnl-doctor-") as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = f"change its permissions, or name another folder ({option})"
        yield Finding(name, FAIL, f"{place} cannot be written to: {error.strerror}", remedy)
        return
    said = f"{_gb(free)} free for {place}"
    remedy = f"free some, or name a folder of a larger disk ({option})"
    if free < NO_DISK:
        yield Finding(name, FAIL, said, remedy)
    elif free < LOW_DISK:
        full = "an expert buffer of CIFAR at full size takes 13 GB"
        yield Finding(name, WARN, f"{said}; {full}", remedy)
    else:
        yield Finding(name, OK, said)


def ray_disk(place: Path) -> Iterator[Finding]:
    """Look at the disk that Ray logs to, and to which it writes objects that do not fit."""
    usage = shutil.disk_usage(place)
    used = 1 - usage.free / usage.total
    said = f"{100 * used:.0f} % of the disk of {place} used"
    if used > FULL_DISK:
        yield Finding("ray's disk", WARN, said, "above 95 % Ray writes no objects there: free some, or set RAY_TMPDIR")
    else:
        yield Finding("ray's disk", OK, said)


def clock(place: Path) -> Iterator[Finding]:
    """Look at the clock, and at that of the file system of runs."""
    year = time.gmtime().tm_year
    if year < FIRST_YEAR:
        remedy = "set the clock (timedatectl set-ntp true): certificates and time budgets depend on it"
        yield Finding("clock", FAIL, f"it says the year {year}", remedy)
        return
    folder = _existing(place.expanduser())
    path = folder / f".ddnl-doctor-{uuid.uuid4().hex[:8]}"
    try:
        before = time.time()
        path.touch()
        after, written = time.time(), path.stat().st_mtime
    except OSError:
        yield Finding("clock", OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))
        return
    finally:
        path.unlink(missing_ok=True)
    skew = max(before - written, written - after, 0.0)
    if skew > MAX_SKEW_S:
        remedy = "set both clocks by NTP: `ddnl status` and `ddnl experts gc` compare them"
        yield Finding("clock", WARN, f"{skew:.0f} s away from that of the file system of {folder}", remedy)
    else:
        yield Finding("clock", OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def ray_starts() -> Iterator[Finding]:
    """Start Ray with one core on this machine, run a task, and stop it."""
    from ddnl_ray.errors import DdnlError
    from ddnl_ray.sweep import runtime

    remedy = "see whether another Ray is in the way (ray stop), /tmp is writable, and 127.0.0.1 can be reached"
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="ddnl-doctor-") as folder:
            with runtime.ray_session(None, 1, 0, Path(folder) / "ray.log") as ray:
                answer = ray.get(ray.remote(_answer).remote(), timeout=RAY_S)
                store = ray.cluster_resources().get("object_store_memory", 0)
    except DdnlError as error:
        yield Finding("ray", FAIL, str(error), remedy)
        return
    except Exception as error:  # Ray raises what it likes where it cannot start
        yield Finding("ray", FAIL, f"{type(error).__name__}: {_first(error)}", remedy)
        return
    said = f"{_version('ray')} started, ran {answer} task and stopped in {time.monotonic() - began:.1f} s"
    yield Finding("ray", OK, f"{said}; object store {_gb(store)}")


def _answer() -> int:
    return 1


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path, or the path itself, that is there."""
    return next((each for each in (path, *path.absolute().parents) if each.is_dir()), Path("/"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(absent)"


def _first(error: Exception) -> Any:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
