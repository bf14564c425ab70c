"""Encoders: ResNets as feature pyramids with declared channels and strides, and their freezing.

Letters: N batch, C channels, H W height and width of the input (multiples of 32 here).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Literal, Self, get_args

import torch
import torchvision
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from unetexp.component import Component
from unetexp.errors import ConfigError, not_a_choice
from unetexp.models.folding import FoldedParts
from unetexp.models.layout import AlignedConv2d, PointwiseConv2d, computed_dtype, is_exported

EncoderName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
FreezeLevel = Literal["none", "stem", "stage1", "stage2", "stage3", "all"]

WEIGHTS_NAMES = ("imagenet", "auto", "none")
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")

_PARTS: dict[FreezeLevel, tuple[str, ...]] = {
    "none": (),
    "stem": ("conv1", "bn1"),
    "stage1": ("layer1",),
    "stage2": ("layer2",),
    "stage3": ("layer3",),
    "all": ("layer4",),
}


class Encoder(Component):
    """The encoder, its initial weights, and which parts of it are trained."""

    name: EncoderName = Field("resnet50", description="the encoder's architecture")
    weights: str = Field(
        "imagenet",
        description="imagenet, auto (imagenet if available, else none), none, or the path of "
        "a .pth, .pt or .safetensors file with torchvision's names",
    )
    freeze: FreezeLevel = Field("none", description="frozen up to and including this part")
    thaw_epoch: int | None = Field(
        None, ge=1, description="first epoch, counted from 1, in which nothing is frozen any more"
    )
    lr_scale: float = Field(
        1.0, gt=0, le=1, description="the encoder's learning rate as a fraction of the decoder's"
    )

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, weights: str) -> str:
        if weights in WEIGHTS_NAMES or PurePath(weights).suffix.lower() in WEIGHTS_SUFFIXES:
            return weights
        sentence = not_a_choice("weights", weights, WEIGHTS_NAMES).removeprefix("weights: ")
        raise ValueError(f"{sentence}, or the path of a {', '.join(WEIGHTS_SUFFIXES)} file")

    @model_validator(mode="after")
    def _thaws_what_is_frozen(self) -> Self:
        if self.thaw_epoch is not None and self.freeze == "none":
            raise ValueError(
                f"thaw_epoch is {self.thaw_epoch}, but freeze is 'none', so there is nothing to "
                f"thaw. Leave thaw_epoch out or set freeze to one of: {', '.join(_PARTS)}"
            )
        return self


class ResNetEncoder(nn.Module):
    """A ResNet without its classifier that returns the features of every stride.

    Deep residual learning for image recognition, He et al. 2016 (arXiv:1512.03385), as torchvision
    builds it; parameters and buffers have torchvision's names, so its state dicts fit.
    """

    strides = (1, 2, 4, 8, 16, 32)

    def __init__(self, name: EncoderName, in_channels: int = 3) -> None:
        """Random weights (He initialisation); `in_channels` is C of the images."""
        super().__init__()
        resnet = torchvision.models.get_model(name, weights=None)
        _multiply_pointwise(resnet)
        self.name: EncoderName = name
        self.frozen: FreezeLevel = "none"
        self._folded = FoldedParts()
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

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> six features: (N, channels[i], H / strides[i], W / strides[i]).

        The first feature is the image. It may have channels of zeros behind the C that count.
        Frozen stages have no graph, unless the image itself needs gradients.
        """
        _, *levels = _PARTS
        needs_graph = image.requires_grad or is_exported()
        frozen = 0 if needs_graph else list(_PARTS).index(self.frozen)
        features = [image]
        for level in levels[:frozen]:
            features.append(self._frozen_stage(level, features[-1]))
        for level in levels[frozen:]:
            features.append(self._stage(level, self._parts(level), features[-1]))
        return features

    def freeze(self, level: FreezeLevel) -> None:
        """Freeze the parts up to and including `level` and thaw the rest; "none" thaws all.

        Frozen parameters get no gradients, and batch norm and dropout there stay in eval mode
        after `train()`. Raises ConfigError for an unknown level.
        """
        if level not in get_args(FreezeLevel):
            raise ConfigError(not_a_choice("encoder.freeze", level, get_args(FreezeLevel)))
        self.frozen = level
        self._folded.clear()
        frozen = self._frozen_parts()
        for name, part in self.named_children():
            learns = name not in frozen
            part.requires_grad_(learns)
            part.train(self.training and learns)
            if not learns:
                part.zero_grad(set_to_none=True)  # or an optimiser would apply old gradients

    def train(self, mode: bool = True) -> Self:
        """As for any module, but frozen parts stay in eval mode."""
        super().train(mode)
        self._folded.clear()
        for name in self._frozen_parts():
            self.get_submodule(name).eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._folded.clear()  # `to(...)` changes tensors in a way that they do not count
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _frozen_parts(self) -> list[str]:
        levels = list(_PARTS)
        frozen = levels[: levels.index(self.frozen) + 1]
        return [name for level in frozen for name in _PARTS[level]]

    def _parts(self, level: FreezeLevel) -> list[nn.Module]:
        return [getattr(self, name) for name in _PARTS[level]]

    @torch.no_grad()
    def _frozen_stage(self, level: FreezeLevel, feature: Tensor) -> Tensor:
        dtype = computed_dtype(self.conv1.weight)
        modules = self._folded.of(level, self._parts(level), dtype)
        return self._stage(level, modules, feature)

    def _stage(self, level: FreezeLevel, modules: Sequence[nn.Module], feature: Tensor) -> Tensor:
        if level == "stage1":
            feature = self.maxpool(feature)
        for module in modules:
            feature = module(feature)
        return self.relu(feature) if level == "stem" else feature


def _multiply_pointwise(resnet: nn.Module) -> None:
    """Give the 1x1 convolutions our class: torchvision builds its own, with the same fields."""
    for module in resnet.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.__class__ = PointwiseConv2d
