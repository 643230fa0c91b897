"""CIFAR from small files in the published layouts, and from real ones where a developer has them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddnl_ray.data import CIFAR10_CLASSES, CIFAR100_CLASSES, load
from ddnl_ray.data.parquet import read_part
from ddnl_ray.errors import DataError

Make = Callable[..., np.ndarray]
WriteParquet = Callable[..., None]


def write_batch(path: Path, images: np.ndarray, labels: list[int], key: str, bytes_keys: bool) -> None:
    """Write [N, 32, 32, 3] as torchvision's archives hold it: rows of planes, pickle protocol 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[Any, Any] = {
        "batch_label": "one",
        "data": np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1)),
        key: labels,
        "filenames": ["a.png"] * len(labels),
    }
    if bytes_keys:
        content = {name.encode(): value for name, value in content.items()}
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("bytes_keys", [True, False])
@pytest.mark.parametrize("above", ["", "cifar10", "cifar10/cifar-10-batches-py"])
def test_torchvision_folder_of_cifar10(tmp_path: Path, pixels: Make, bytes_keys: bool, above: str) -> None:
    images, labels = pixels(12, 32), [*range(10), 3, 4]
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    for number, rows in enumerate(np.array_split(np.arange(10), 5), start=1):
        write_batch(folder / f"data_batch_{number}", images[rows], [labels[r] for r in rows], "labels", bytes_keys)
    write_batch(folder / "test_batch", images[10:], labels[10:], "labels", bytes_keys)
    dataset = load("cifar10", root=tmp_path / above)
    np.testing.assert_array_equal(dataset.train_images.permute(0, 2, 3, 1).numpy(), images[:10])
    np.testing.assert_array_equal(dataset.test_images.permute(0, 2, 3, 1).numpy(), images[10:])
    assert dataset.train_labels.tolist() == labels[:10]
    assert dataset.test_labels.tolist() == [3, 4]
    assert dataset.classes == CIFAR10_CLASSES
    assert torch.equal(dataset.clean_labels, dataset.train_labels)
    assert dataset.source == str(folder)


def test_batches_as_python_2_wrote_them(tmp_path: Path, pixels: Make) -> None:
    """The published files hold the raw bytes as a Python 2 string, under NumPy's old module name."""
    raw = pixels(1, 32).transpose(0, 3, 1, 2).tobytes()
    program = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbU\x06labels]K\x07au."
    )
    assert pickle.loads(program, encoding="latin1")["labels"] == [7]
    from ddnl_ray.data.legacy_pickle import read_batch

    (tmp_path / "batch").write_bytes(program)
    data, labels = read_batch(tmp_path / "batch", "labels")
    assert data.tobytes() == raw
    assert labels == [7]


def test_torchvision_folder_of_cifar100(tmp_path: Path, pixels: Make) -> None:
    images, labels = pixels(102, 32), [*range(100), 5, 99]
    folder = tmp_path / "cifar-100-python"
    write_batch(folder / "train", images[:100], labels[:100], "fine_labels", False)
    write_batch(folder / "test", images[100:], labels[100:], "fine_labels", False)
    dataset = load("cifar100", root=tmp_path)
    assert dataset.num_classes == 100
    assert dataset.test_labels.tolist() == [5, 99]
    np.testing.assert_array_equal(dataset.train_images.permute(0, 2, 3, 1).numpy(), images[:100])


def test_class_names_are_sorted_and_distinct() -> None:
    assert len(CIFAR100_CLASSES) == 100
    for classes in (CIFAR10_CLASSES, CIFAR100_CLASSES):
        assert list(classes) == sorted(set(classes))


@pytest.mark.parametrize(
    ("name", "image_column", "label_column", "num_classes"),
    [
        ("cifar10", "img", "label", 10),
        ("cifar10", "image", "label", 10),
        ("cifar100", "img", "fine_label", 100),
    ],
)
@pytest.mark.parametrize("below", ["", "data"])
def test_hub_parquet(
    tmp_path: Path,
    pixels: Make,
    write_parquet: WriteParquet,
    name: str,
    image_column: str,
    label_column: str,
    num_classes: int,
    below: str,
) -> None:
    images, labels = pixels(num_classes + 2, 32), [*range(num_classes), 3, 4]
    folder = tmp_path / name / below
    half = num_classes // 2
    columns = {"image_column": image_column, "label_column": label_column}
    write_parquet(folder / "train-00000-of-00002.parquet", images[:half], labels[:half], **columns)
    write_parquet(folder / "train-00001-of-00002.parquet", images[half:-2], labels[half:-2], **columns)
    write_parquet(folder / "test-00000-of-00001.parquet", images[-2:], labels[-2:], **columns)
    dataset = load(name, root=tmp_path)
    assert dataset.train_labels.tolist() == labels[:-2]
    np.testing.assert_array_equal(dataset.train_images.permute(0, 2, 3, 1).numpy(), images[:-2])
    np.testing.assert_array_equal(dataset.test_images.permute(0, 2, 3, 1).numpy(), images[-2:])


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_absent_data_say_where_they_were_looked_for(tmp_path: Path, name: str, folder: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name, root=tmp_path)
    message = str(caught.value)
    assert f"{name} is not there: looked for {tmp_path / folder}, {tmp_path / name / folder}" in message
    assert str(tmp_path / name / "train*.parquet") in message
    assert "or fetch it with --download" in message


def test_download_is_asked_for_once_and_only_on_request(
    tmp_path: Path, pixels: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    calls = []

    def fetch(root: str, download: bool) -> None:
        calls.append((root, download))
        images = pixels(100, 32)
        for part in ("train", "test"):
            write_batch(tmp_path / "cifar-100-python" / part, images, list(range(100)), "fine_labels", False)

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", fetch)
    with pytest.raises(DataError, match="cifar100 is not there"):
        load("cifar100", root=tmp_path)
    assert calls == []
    for _ in range(2):
        assert len(load("cifar100", root=tmp_path, download=True).train_images) == 100
    assert calls == [(str(tmp_path), True)]


def test_missing_batches_are_named(tmp_path: Path, pixels: Make) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    for number in (1, 2, 4):
        write_batch(folder / f"data_batch_{number}", pixels(2, 32), [0, 1], "labels", False)
    with pytest.raises(DataError, match=r"cifar-10-batches-py lacks data_batch_3, data_batch_5; unpack"):
        load("cifar10", root=tmp_path)


def test_train_without_test_parquet(tmp_path: Path, pixels: Make, write_parquet: WriteParquet) -> None:
    write_parquet(tmp_path / "train.parquet", pixels(10, 32), list(range(10)))
    with pytest.raises(DataError, match=r"has train\*\.parquet but no test\*\.parquet"):
        load("cifar10", root=tmp_path)


class Malicious:
    """Runs a command when it is unpickled by the standard library."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_malicious_batch_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    target, folder = tmp_path / "owned", tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    content = pickle.dumps({"data": Malicious(target), "labels": [0]}, protocol=protocol)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_1 is not a CIFAR batch .*it asks for posix\.mkdir"):
        load("cifar10", root=tmp_path)
    assert not target.exists()
    # The file is dangerous in earnest: the standard library would have run it.
    pickle.loads(content)
    assert target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOFError"),
        (b"garbage", "UnpicklingError"),
        (pickle.dumps([1, 2]), "AttributeError"),
        (pickle.dumps({"labels": [0]}), "KeyError: 'data'"),
        (
            pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}, 2),
            r"\[2, 5\] pixels and 2 labels",
        ),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, 2),
            r"3072\] pixels and 1 labels",
        ),
        (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [0]}, 2), "the array must hold unsigned bytes"),
        (
            pickle.dumps({"data": np.zeros((1, 3072), object), "labels": [0]}, 2),
            "the array must hold unsigned bytes",
        ),
        (pickle.dumps({"data": eval, "labels": [0]}, 2), "it asks for __builtin__.eval"),
    ],
)
def test_damaged_batches_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    from ddnl_ray.data.legacy_pickle import read_batch

    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match=rf"batch is not a CIFAR batch \(.*{message}"):
        read_batch(tmp_path / "batch", "labels")


def test_real_test_images(real_data: Path) -> None:
    part = read_part([real_data / "cifar10" / "test-00000-of-00001.parquet"])
    assert torch.bincount(part.labels).tolist() == [1000] * 10


@pytest.mark.slow
def test_real_cifar10(real_data: Path) -> None:
    dataset = load("cifar10", root=real_data)
    assert dataset.train_images.shape == (50_000, 3, 32, 32)
    assert dataset.test_images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(dataset.train_labels).tolist() == [5000] * 10
    # The published mean of the training pixels; the copy went through JPEG, which keeps means.
    mean = dataset.train_images.float().mean(dim=(0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=2e-3, rtol=0)
