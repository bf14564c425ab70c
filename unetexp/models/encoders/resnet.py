"""ResNets as torchvision builds them.

Letters: N batch, C channels, H W height and width of the input (multiples of 32 here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torchvision
from pydantic import Field, field_validator
from torch import Tensor, nn

from unetexp.models.encoders.base import EncoderSettings
from unetexp.models.encoders.staged import StagedEncoder
from unetexp.models.encoders.timm_names import timm_names, vit_names
from unetexp.models.layout import AlignedConv2d, PointwiseConv2d

ResNetName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "wide_resnet50_2",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_PARTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "stem": ("conv1", "bn1"),
    "stage1": ("layer1",),
    "stage2": ("layer2",),
    "stage3": ("layer3",),
    "all": ("layer4",),
}


class ResNet(EncoderSettings):
    """A ResNet as torchvision builds it."""

    kind: Literal["resnet"] = "resnet"
    name: ResNetName = Field("resnet50", description="the encoder's architecture")

    @field_validator("name", mode="before")
    @classmethod
    def _of_this_family(cls, name: object) -> object:
        """Another family's name is answered with that family."""
        if not isinstance(name, str) or name in get_args(ResNetName):
            return name
        if name in timm_names():
            kind = "vit" if name in vit_names() else "timm"
            raise ValueError(
                f"{name!r} is a model of timm: set encoder.kind={kind}. Of kind resnet there are: "
                f"{', '.join(get_args(ResNetName))}"
            )
        return name

    @property
    def mean_and_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """ImageNet's, also for files and for random weights."""
        return IMAGENET_MEAN, IMAGENET_STD

    def build(self, in_channels: int) -> ResNetEncoder:
        """The encoder with random weights for images of so many channels, nothing frozen."""
        return ResNetEncoder(self.name, in_channels)


class ResNetEncoder(StagedEncoder):
    """A ResNet without its classifier that returns the features of every stride.

    Deep residual learning for image recognition, He et al. 2016 (arXiv:1512.03385), as torchvision
    builds it; parameters and buffers have torchvision's names, so its state dicts fit.
    """

    parts = _PARTS
    first_convolutions = ("conv1",)

    def __init__(self, name: ResNetName, in_channels: int = 3) -> None:
        """Random weights (He initialisation); `in_channels` is C of the images."""
        super().__init__()
        resnet = torchvision.models.get_model(name, weights=None)
        _multiply_pointwise(resnet)
        self.name = name
        self.conv1 = AlignedConv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1: nn.Module = resnet.bn1
        self.relu: nn.Module = resnet.relu
        self.maxpool: nn.Module = resnet.maxpool
        self.layer1: nn.Module = resnet.layer1
        self.layer2: nn.Module = resnet.layer2
        self.layer3: nn.Module = resnet.layer3
        self.layer4: nn.Module = resnet.layer4
        deepest: int = resnet.fc.in_features
        self.channels = (in_channels, 64, deepest // 8, deepest // 4, deepest // 2, deepest)

    @property
    def longest_path(self) -> list[nn.Module]:
        """All layers but those of the shortcuts."""
        return [layer for name, layer in self.named_modules() if "downsample" not in name]

    def _stage(self, level: str, modules: Sequence[nn.Module], state: Tensor) -> Tensor:
        if level == "stage1":
            state = self.maxpool(state)
        state = super()._stage(level, modules, state)
        return self.relu(state) if level == "stem" else state


def _multiply_pointwise(resnet: nn.Module) -> None:
    """Give the 1x1 convolutions our class: torchvision builds its own, with the same fields."""
    for module in resnet.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.__class__ = PointwiseConv2d
