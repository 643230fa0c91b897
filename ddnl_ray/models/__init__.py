"""The networks of the field on small images, built from one generator, and as functions of a flat vector."""

from ddnl_ray.models.convnet import ConvNet
from ddnl_ray.models.doubling import DoublingConvNet
from ddnl_ray.models.flat import Flat, Outputs
from ddnl_ray.models.norm import InstanceNorm2d
from ddnl_ray.models.resnet import ResNet18
from ddnl_ray.models.spec import NETWORKS, NetworkSpec, build, initialise
from ddnl_ray.models.vgg import VGG11

__all__ = [
    "NETWORKS",
    "VGG11",
    "ConvNet",
    "DoublingConvNet",
    "Flat",
    "InstanceNorm2d",
    "NetworkSpec",
    "Outputs",
    "ResNet18",
    "build",
    "initialise",
]
