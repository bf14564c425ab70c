"""Encoders that timm builds: every model that is a chain of layers with a feature pyramid.

Letters: N batch, C channels, H W height and width of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from unetexp.models.encoders.base import EncoderSettings
from unetexp.models.encoders.staged import StagedEncoder
from unetexp.models.encoders.timm_names import timm_names, unknown_to_timm, vit_names
from unetexp.models.encoders.timm_outline import layers_of, outline_of
from unetexp.models.layout import AlignedConv2d, PointwiseConv2d, SameConv2d, is_channels_last

# Classes of torch, timm and ours in which a pixel sees no farther than the convolutions do.
_CONVOLUTIONS = {"Conv2d", "AlignedConv2d", "SameConv2d", "PointwiseConv2d", "MaxPool2d"}
_POINTWISE = {"Identity", "Dropout", "DropPath", "Linear", "Mlp", "LayerScale2d"}
_POINTWISE |= {"BatchNorm2d", "BatchNormAct2d", "LayerNorm", "LayerNorm2d"}
_POINTWISE |= {"_CpuSyncBatchNorm", "_CudaSyncBatchNorm"}
_POINTWISE |= {"ReLU", "ReLU6", "LeakyReLU", "SiLU", "GELU", "GELUTanh", "Hardswish", "HardSwish"}
_BLOCKS = {"Module", "Sequential", "ConvNormAct", "InvertedResidual", "ConvBnAct", "RegStage"}
_BLOCKS |= {"EdgeResidual", "UniversalInvertedResidual", "DepthwiseSeparableConv"}
_BLOCKS |= {"ConvNeXtStage", "ConvNeXtBlock", "BasicBlock", "Bottleneck"}
_WITH_SHORTCUT = ("BasicBlock", "Bottleneck")
_STRIDES: dict[str, int] = {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "all": 32}


class Timm(EncoderSettings):
    """Any model of timm with features of strides 4 to 32: EfficientNet, ConvNeXt, Swin, ..."""

    kind: Literal["timm"] = "timm"
    name: str = Field(
        "tf_efficientnet_lite0",
        description="the model's name in timm, with or without the tag of its weights "
        "(convnext_tiny.fb_in22k_ft_in1k)",
    )

    @field_validator("name")
    @classmethod
    def _has_features(cls, name: str) -> str:
        if name not in timm_names():
            raise ValueError(unknown_to_timm(name))
        if name in vit_names():
            raise ValueError(f"{name!r} is a plain Vision Transformer: set encoder.kind=vit.")
        outline_of(name)
        return name

    @property
    def mean_and_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """What timm states for the weights of this name, also for files and random weights."""
        import timm

        weights = timm.get_pretrained_cfg(self.name)
        return weights.mean, weights.std

    def build(self, in_channels: int) -> TimmEncoder:
        """The encoder with random weights for images of so many channels, nothing frozen."""
        return TimmEncoder(self.name, in_channels)


class TimmEncoder(StagedEncoder):
    """A model of timm up to its feature of stride 32.

    Parameters and buffers have timm's names, so its state dicts fit without the classifier. The
    stem is what comes before the first stage; in a model whose first feature has stride 4 there is
    none of stride 2. Models with windows of a fixed size, such as MaxViT, have a larger
    `size_multiple`.
    """

    def __init__(self, name: str, in_channels: int = 3) -> None:
        """Random weights as timm draws them; `in_channels` is C of the images.

        Raises ConfigError for a model that is no chain with features of stride 4 to 32.
        """
        import timm

        super().__init__()
        outline = outline_of(name)
        model = timm.create_model(
            name, pretrained=False, num_classes=0, in_chans=in_channels, **outline.options
        )
        self.name = name
        self.size_multiple = outline.multiple
        self.channels = (in_channels, *(outline.channels.get(s, 0) for s in self.strides[1:]))
        layers = layers_of(model, outline.taps)
        for path, layer in layers:
            self._adopt(path, layer)
        self.parts = _parts([path for path, _ in layers], outline.taps)
        self.first_convolutions = _first_convolutions(model)
        self._is_nhwc = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        for path, module in self.named_modules():
            _specialise(module, is_first=path in self.first_convolutions)

    @property
    def longest_path(self) -> list[nn.Module] | None:
        """The layers but those of shortcuts; None unless all of them are known to be local."""
        modules = dict(self.named_modules())
        kinds = {path: type(module).__name__ for path, module in modules.items() if path}
        if not (_CONVOLUTIONS | _POINTWISE | _BLOCKS).issuperset(kinds.values()):
            return None
        shortcuts = tuple(
            f"{path}.downsample" for path, kind in kinds.items() if kind in _WITH_SHORTCUT
        )
        return [module for path, module in modules.items() if not path.startswith(shortcuts)]

    def _adopt(self, path: str, layer: nn.Module) -> None:
        """Register a layer of the model under the name that it has there."""
        *parents, name = path.split(".")
        parent: nn.Module = self
        for step in parents:
            if step not in parent._modules:
                parent.add_module(step, nn.Module())
            parent = parent.get_submodule(step)
        parent.add_module(name, layer)

    @torch.no_grad()
    def _frozen_stage(self, level: str, state: Tensor) -> Tensor:
        return self._stage(level, self._modules_of(level), state)

    def _stage(self, level: str, modules: Sequence[nn.Module], state: Tensor) -> Tensor:
        if level == "stem" and not self._takes_more_channels():
            state = state[:, : self.channels[0]]
        return super()._stage(level, modules, state)

    def _takes_more_channels(self) -> bool:
        return all(
            isinstance(self.get_submodule(path), AlignedConv2d) for path in self.first_convolutions
        )

    def _feature(self, level: str, state: Tensor, image: Tensor) -> Tensor:
        if level == "stem" and not self.channels[1]:
            batch, _, height, width = image.shape
            return state.new_empty(batch, 0, height // 2, width // 2)
        if not self._is_nhwc:
            return state
        feature = state.permute(0, 3, 1, 2)
        return feature if is_channels_last(image) else feature.contiguous()


def _parts(paths: Sequence[str], taps: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    """The layers of each level: those up to its stride's tap, behind those of the level before.

    Without a tap of stride 2 the stem is what comes before the layer that gives stride 4.
    """
    ends = {stride: paths.index(tap) + 1 for stride, tap in taps.items()}
    ends.setdefault(2, ends[4] - 1)
    parts: dict[str, tuple[str, ...]] = {"none": ()}
    start = 0
    for level, stride in _STRIDES.items():
        parts[level] = tuple(paths[start : ends[stride]])
        start = ends[stride]
    return parts


def _first_convolutions(model: Any) -> tuple[str, ...]:
    """The names of the convolutions that see the image, as timm states them."""
    names = model.pretrained_cfg["first_conv"]
    return (names,) if isinstance(names, str) else tuple(names)


def _specialise(module: nn.Module, *, is_first: bool) -> None:
    """Give convolutions our classes, which have the same fields as timm's and torch's."""
    import timm.layers

    if type(module) is timm.layers.Conv2dSame:
        module.__class__ = SameConv2d
    elif type(module) is nn.Conv2d and is_first:
        module.__class__ = AlignedConv2d
    elif type(module) is nn.Conv2d and _is_pointwise(module):
        module.__class__ = PointwiseConv2d


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
