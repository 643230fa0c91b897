"""The embedded data set: scikit-learn's handwritten digits, 1797 real images of 8x8 pixels."""

from __future__ import annotations

import numpy as np
import torch

from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.split import stratified_holdout

NUM_TEST = 360
_SPLIT_SEED = 0


def load_digits() -> Dataset:
    """Return the digits: 1437 training and 360 test images, one channel, values 0 to 16.

    The source has no test set of its own; the split here is stratified and fixed.
    """
    # Imported here because it takes a second, and every command imports this package.
    from sklearn.datasets import load_digits as read

    data, target = read(return_X_y=True)
    images = torch.from_numpy(data.reshape(-1, 1, 8, 8).astype(np.uint8))
    labels = target.astype(np.int64)
    train, test = stratified_holdout(labels, NUM_TEST, _SPLIT_SEED)
    train_labels = torch.from_numpy(labels[train])
    return Dataset(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        train_images=images[train],
        train_labels=train_labels,
        test_images=images[test],
        test_labels=torch.from_numpy(labels[test]),
        max_value=16,
        clean_labels=train_labels,
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        source="scikit-learn's load_digits",
    )
