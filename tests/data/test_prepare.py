from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddnl_ray.data import Dataset, Normalise, PrepareConfig, PreparedData, Zca, load, prepare
from ddnl_ray.errors import DataError, RequestError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def raw(dataset: Dataset, index: torch.Tensor) -> torch.Tensor:
    return dataset.train_images[index].float() / dataset.max_value


def test_parts_are_disjoint_complete_and_in_file_order(digits: Dataset) -> None:
    data = prepare(digits)
    assert len(data.val_index) == 144
    assert sorted([*data.train_index.tolist(), *data.val_index.tolist()]) == list(range(1437))
    assert (data.train_index.diff() > 0).all()
    assert (data.val_index.diff() > 0).all()


@pytest.mark.parametrize("zca", [True, False])
def test_images_are_the_transformed_rows(digits: Dataset, zca: bool) -> None:
    data = prepare(digits, PrepareConfig(zca=zca))
    for images, index in ((data.train_images, data.train_index), (data.val_images, data.val_index)):
        assert images.dtype == torch.float32
        torch.testing.assert_close(data.transform.invert(images), raw(digits, index), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.test_images, data.transform.apply(digits.test_images.float() / 16))
    assert torch.equal(data.test_labels, digits.test_labels)
    assert torch.equal(data.observed_labels, digits.train_labels)
    assert torch.equal(data.clean_labels, digits.train_labels)
    assert data.input_shape == (1, 8, 8)
    assert data.num_classes == 10


@pytest.mark.parametrize("zca", [True, False])
def test_the_transform_sees_the_fit_part_only(digits: Dataset, zca: bool) -> None:
    config = PrepareConfig(zca=zca)
    data = prepare(digits, config)
    blackened = digits.train_images.clone()
    blackened[data.val_index] = 0
    other = prepare(replace(digits, train_images=blackened, test_images=torch.zeros_like(digits.test_images)), config)
    assert torch.equal(other.train_images, data.train_images)
    assert not torch.equal(other.val_images, data.val_images)


def test_own_statistics_make_the_fit_part_standard(digits: Dataset) -> None:
    images = prepare(digits).train_images.double()
    assert abs(float(images.mean())) < 1e-6
    assert abs(float(images.std(correction=0)) - 1) < 1e-6


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("cifar100", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("tinyimagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_benchmarks_use_the_published_constants(
    digits: Dataset, name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    colour = replace(
        digits,
        name=name,
        train_images=digits.train_images.repeat(1, 3, 1, 1),
        test_images=digits.test_images.repeat(1, 3, 1, 1),
    )
    data = prepare(colour)
    expected = (raw(colour, data.train_index) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(data.train_images, expected)


def test_seeds_choose_the_split(digits: Dataset) -> None:
    first, again, other = (prepare(digits, PrepareConfig(split_seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.val_index, again.val_index)
    assert not torch.equal(first.val_index, other.val_index)


def test_no_validation_part(digits: Dataset) -> None:
    for zca in (True, False):
        data = prepare(digits, PrepareConfig(val_fraction=0, zca=zca))
        assert data.val_images.shape == (0, 1, 8, 8)
        assert data.val_index.shape == (0,)
        assert len(data.train_images) == 1437


def test_subsets_are_drawn_first(digits: Dataset) -> None:
    data = prepare(digits, PrepareConfig(subset=500, test_subset=50, val_fraction=0.2))
    assert (len(data.train_images), len(data.val_images), len(data.test_images)) == (400, 100, 50)
    assert len(data.observed_labels) == 1437
    other = prepare(digits, PrepareConfig(subset=500, val_fraction=0.1))
    assert {*data.train_index.tolist(), *data.val_index.tolist()} == {
        *other.train_index.tolist(),
        *other.val_index.tolist(),
    }
    # Not the first rows of the file.
    assert data.train_index.max() > 1000


def test_the_fingerprint_names_data_and_config(digits: Dataset) -> None:
    configs = [
        PrepareConfig(),
        PrepareConfig(split_seed=1),
        PrepareConfig(zca=True),
        PrepareConfig(subset=900),
    ]
    prints = [prepare(digits, config).fingerprint for config in configs]
    relabelled = replace(digits, train_labels=digits.train_labels.roll(1))
    assert len({*prints, prepare(relabelled).fingerprint}) == 5
    assert prepare(digits).fingerprint == prints[0]


@pytest.mark.parametrize("zca", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_arrays_travel_without_copies(digits: Dataset, zca: bool, clean: bool) -> None:
    dataset = digits if clean else replace(digits, clean_labels=None)
    data = prepare(dataset, PrepareConfig(zca=zca, val_fraction=0))
    arrays = data.arrays()
    assert all(type(array) is np.ndarray for array in arrays.values())
    assert arrays["train_images"].__array_interface__["data"][0] == data.train_images.data_ptr()
    for array in arrays.values():
        array.flags.writeable = False
    back = PreparedData.from_arrays(arrays, json.loads(json.dumps(data.meta())))
    assert back.train_images.data_ptr() == data.train_images.data_ptr()
    assert type(back.transform) is (Zca if zca else Normalise)
    assert back.meta() == data.meta()
    assert back.classes == data.classes
    assert (back.clean_labels is None) is not clean
    again = back.arrays()
    assert again.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array)


def test_to_moves_every_tensor(digits: Dataset) -> None:
    moved = prepare(digits, PrepareConfig(zca=True)).to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 8
    tensors += vars(moved.transform).values()
    assert all(tensor.device.type == "meta" for tensor in tensors)


def test_impossible_requests_are_refused(digits: Dataset) -> None:
    with pytest.raises(RequestError, match=r"data\.val_fraction must be in \[0, 0\.5\], but got 0\.6"):
        PrepareConfig(val_fraction=0.6)
    with pytest.raises(RequestError, match=r"data\.subset must be at least 1, but got 0"):
        PrepareConfig(subset=0)
    with pytest.raises(DataError, match=r"data\.subset must be at most the 1437 images that there are, but got 2000"):
        prepare(digits, PrepareConfig(subset=2000))
    with pytest.raises(DataError, match=r"data\.test_subset must be at most the 360"):
        prepare(digits, PrepareConfig(test_subset=361))


def test_a_class_without_images_to_fit_on_is_named(digits: Dataset) -> None:
    labels = torch.where(digits.train_labels == 7, 6, digits.train_labels)
    labels[0] = 7
    rare = replace(digits, train_labels=labels)
    seed = next(s for s in range(100) if 0 in prepare(digits, PrepareConfig(split_seed=s)).val_index)
    with pytest.raises(DataError, match=r"class 7 \('7'\) has no image among the 1293 to fit on; raise data\.subset"):
        prepare(rare, PrepareConfig(split_seed=seed))


def test_a_constant_channel_is_named() -> None:
    images = torch.rand(4, 3, 2, 2)
    images[:, 1] = 0.5
    with pytest.raises(DataError, match="channel 1 has the same value in every pixel"):
        Normalise.fit(images)


def test_the_global_generators_are_untouched(digits: Dataset) -> None:
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    prepare(digits, PrepareConfig(subset=500, zca=True))
    assert (before == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())
