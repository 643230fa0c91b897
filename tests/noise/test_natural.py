from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from ddnl_ray.errors import DataError, RequestError
from ddnl_ray.noise.natural import read_label_file, read_natural

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 10, 40)
COLUMNS = ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label")


def _human10() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"clean_label": CLEAN} | {name: rng.integers(0, 10, len(CLEAN)) for name in COLUMNS}


def _save(content: object, *, zipped: bool, numpy1: bool) -> bytes:
    """Pickle ``content`` as torch does, with the module names of NumPy 1 or NumPy 2."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    names = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    old, new = names if numpy1 else names[::-1]
    if not zipped:
        return buffer.getvalue().replace(old, new)
    target = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name).replace(old, new))
    return target.getvalue()


def _read(path: Path, label_set: str = "worse", clean: NDArray[np.int64] = CLEAN) -> NDArray[np.int64]:
    return read_natural(label_set, clean, dataset="cifar10", num_classes=10, file=path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("numpy1", [True, False])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_published_files_of_either_numpy_and_container(tmp_path: Path, zipped: bool, numpy1: bool, dtype: type) -> None:
    content = {name: values.astype(dtype) for name, values in _human10().items()}
    data = _save(content, zipped=zipped, numpy1=numpy1)
    assert (b"numpy.core" in data) == numpy1
    path = tmp_path / "CIFAR-10_human.pt"
    path.write_bytes(data)
    columns = read_label_file(path)
    assert set(columns) == set(content)
    for name, values in content.items():
        assert columns[name].dtype == np.int64
        np.testing.assert_array_equal(columns[name], values)


@pytest.mark.parametrize("numpy1", [True, False])
def test_cifar100_file_with_lists_of_scalars(tmp_path: Path, numpy1: bool) -> None:
    clean = RNG.integers(0, 100, 30)
    content = {
        "clean_label": clean,
        "noisy_label": (clean + 1) % 100,
        "clean_coarse_label": [int(value) // 5 for value in clean],
        "noisy_coarse_label": list(clean // 5),
    }
    path = tmp_path / "CIFAR-100_human.pt"
    path.write_bytes(_save(content, zipped=True, numpy1=numpy1))
    given = read_natural("fine", clean, dataset="cifar100", num_classes=100, root=tmp_path)
    np.testing.assert_array_equal(given, (clean + 1) % 100)
    np.testing.assert_array_equal(read_label_file(path)["noisy_coarse_label"], clean // 5)


class _Command:
    """An object whose unpickling would run a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_file_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    command = f"touch {trace}"
    path = tmp_path / "CIFAR-10_human.pt"
    path.write_bytes(_save(_human10() | {"x": _Command(command)}, zipped=zipped, numpy1=False))
    with pytest.raises(DataError, match="is refused: it holds something else than integer arrays and lists"):
        _read(path)
    assert not trace.exists()
    assert os.system(command) == 0
    assert trace.exists()


def test_reading_leaves_no_name_allowed_for_others(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = tmp_path / "labels.pt"
    path.write_bytes(_save(_human10(), zipped=True, numpy1=False))
    _read(path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("content", [b"", b"not a file of torch", b"PK\x03\x04broken"])
def test_damaged_pt_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.pt is (not a readable label file|refused)"):
        _read(path)


def test_other_contents_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.pt").write_bytes(_save([1, 2], zipped=True, numpy1=False))
    with pytest.raises(DataError, match="must hold a dictionary of labels, but holds a list"):
        _read(tmp_path / "list.pt")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        _read(tmp_path / "bad.parquet")
    (tmp_path / "labels.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"human labels are read from \.pt or \.parquet"):
        _read(tmp_path / "labels.npy")
    with pytest.raises(DataError, match=r"the label file .*absent\.pt does not exist"):
        _read(tmp_path / "absent.pt")


def _parquet(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(content), path)
    return path


@pytest.mark.parametrize("folder", ["", "cifar10"])
@pytest.mark.parametrize("name", ["CIFAR-10_human.pt", "cifar10n_labels.parquet"])
def test_the_file_is_found_in_the_data_folder(tmp_path: Path, folder: str, name: str) -> None:
    path = tmp_path / folder / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".pt":
        path.write_bytes(_save(_human10(), zipped=True, numpy1=True))
    else:
        _parquet(path, _human10())
    for label_set, column in zip(("aggre", "random1", "random2", "random3", "worse"), COLUMNS, strict=True):
        given = read_natural(label_set, CLEAN, dataset="cifar10", num_classes=10, root=tmp_path)
        np.testing.assert_array_equal(given, _human10()[column])


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for .*CIFAR-10_human\.pt, .*cifar10.cifar10n_labels\.parquet"):
        read_natural("worse", CLEAN, dataset="cifar10", num_classes=10, root=tmp_path)
    with pytest.raises(DataError, match=r"no data folder is given; set file to CIFAR-100_human\.pt"):
        read_natural("fine", CLEAN, dataset="cifar100", num_classes=100)


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "labels.parquet", _human10())
    other = CLEAN.copy()
    other[[7, 9]] = (other[[7, 9]] + 1) % 10
    with pytest.raises(DataError, match="differs from the data set's labels in 2 of 40 rows, first in row 7"):
        _read(path, clean=other)
    with pytest.raises(DataError, match="has 40 labels, but the training set has 39 images"):
        _read(path, clean=CLEAN[:-1])


def test_incomplete_and_impossible_columns_are_refused(tmp_path: Path) -> None:
    content = _human10()
    del content["worse_label"]
    with pytest.raises(DataError, match="has no worse_label; it has aggre_label, clean_label, random_label1"):
        _read(_parquet(tmp_path / "short.parquet", content))
    with pytest.raises(DataError, match="has no clean_label"):
        _read(_parquet(tmp_path / "unchecked.parquet", {"worse_label": CLEAN}))
    with pytest.raises(DataError, match=r"worse_label of .* holds labels outside 0 to 9"):
        _read(_parquet(tmp_path / "wide.parquet", {"clean_label": CLEAN, "worse_label": CLEAN + 1}))


@pytest.mark.parametrize(
    ("dataset", "label_set", "message"),
    [
        ("digits", "worse", "human labels exist for cifar10 and cifar100, but the data set is 'digits'"),
        ("cifar100", "worse", "cifar100 has no human label set 'worse'; its sets are fine"),
        ("cifar10", "fine", "cifar10 has no human label set 'fine'; its sets are aggre, random1"),
    ],
)
def test_sets_that_do_not_exist_are_refused(dataset: str, label_set: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_natural(label_set, CLEAN, dataset=dataset, num_classes=10)
