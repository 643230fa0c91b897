"""Data sets, splits, transforms and augmentation."""

from ddnl_ray.data.augment import Augment, DiffAug, Draw, apply_classes, augmentation, draw_classes
from ddnl_ray.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES
from ddnl_ray.data.cutmix import CutMix, CutMixDraw, mixing
from ddnl_ray.data.dataset import Dataset
from ddnl_ray.data.dsa import OPERATIONS, Dsa, DsaDraw
from ddnl_ray.data.labels import read_labels
from ddnl_ray.data.normalise import Normalise
from ddnl_ray.data.prepare import PrepareConfig, PreparedData, Whitening, part_of_test, prepare
from ddnl_ray.data.sources import BENCHMARKS, DEFAULT_ROOT, load
from ddnl_ray.data.zca import Zca

__all__ = [
    "BENCHMARKS",
    "CIFAR10_CLASSES",
    "CIFAR100_CLASSES",
    "DEFAULT_ROOT",
    "OPERATIONS",
    "Augment",
    "CutMix",
    "CutMixDraw",
    "Dataset",
    "DiffAug",
    "Draw",
    "Dsa",
    "DsaDraw",
    "Normalise",
    "PrepareConfig",
    "PreparedData",
    "Whitening",
    "Zca",
    "apply_classes",
    "augmentation",
    "draw_classes",
    "load",
    "mixing",
    "part_of_test",
    "prepare",
    "read_labels",
]
