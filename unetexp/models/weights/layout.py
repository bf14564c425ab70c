"""Which tensors of an encoder pretrained weights fill, and the names that files have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
import torchvision
from torch import nn

from unetexp.models.encoders import EncoderSettings

# The timm models whose tensors are those of torchvision's model, in the same order: logits are
# equal. Others differ in order, padding or the epsilon of their norms.
_TORCHVISION = {
    **{f"efficientnet_b{size}": f"efficientnet_b{size}" for size in range(5)},
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
    **{f"densenet{depth}": f"densenet{depth}" for depth in (121, 161, 169, 201)},
    "mobilenetv2_100": "mobilenet_v2",
}

# Of the blocks of `efficientnet_pytorch`, which segmentation_models_pytorch uses as well; a block
# that does not expand has no `_expand_conv` and counts its norms from `_bn1`.
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
}
_NOT_EXPANDING = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
}
_AROUND = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


@dataclass(frozen=True)
class Layout:
    """An encoder's tensors that pretrained weights fill.

    Names are those of the library that defines the architecture; the encoder's own begin with
    `prefix` besides.
    """

    prefix: str
    shapes: Mapping[str, torch.Size]
    """For RGB images."""
    by_channels: frozenset[str]
    """The first convolutions, which depend on the number of channels."""
    aliases: Mapping[str, str]
    """Every name that files have for a tensor of the whole model, classifier included."""


def layout_of(encoder: EncoderSettings) -> Layout:
    """The layout of this encoder; nothing is allocated."""
    return _layout(type(encoder).model_validate({"name": encoder.name}))


@cache
def _layout(encoder: EncoderSettings) -> Layout:
    with torch.device("meta"):
        built = encoder.build(3)
        whole = list(_whole_model(encoder).state_dict())
    rgb = {name: tensor.shape for name, tensor in built.state_dict().items()}
    heads = {""} | {name.split(".")[0] + "." for name in rgb}
    known = set(whole)
    prefix = max(sorted(heads), key=lambda head: len(_behind(head, rgb) & known))
    shapes = {name: rgb[prefix + name] for name in _ordered(prefix, rgb) if name in known}
    first = frozenset(f"{name}.weight".removeprefix(prefix) for name in built.first_convolutions)
    return Layout(prefix, shapes, first, _aliases(encoder, whole))


def _ordered(prefix: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _behind(prefix: str, names: Iterable[str]) -> set[str]:
    return set(_ordered(prefix, names))


def _whole_model(encoder: EncoderSettings) -> nn.Module:
    """The architecture with its classifier, as its library builds it."""
    if encoder.kind == "resnet":
        return cast(nn.Module, torchvision.models.get_model(encoder.name, weights=None))
    import timm

    return cast(nn.Module, timm.create_model(encoder.name, pretrained=False))


def _aliases(encoder: EncoderSettings, whole: list[str]) -> dict[str, str]:
    aliases = dict(_flattened(whole))
    if encoder.kind != "resnet":
        aliases |= _efficientnet_pytorch(whole)
        aliases |= _torchvisions(encoder.name.split(".")[0], whole)
    return aliases | {name: name for name in whole}


def _flattened(whole: list[str]) -> Iterator[tuple[str, str]]:
    """`stages.0.x` is `stages_0.x` in timm's models that return features."""
    for name in whole:
        first, _, rest = name.partition(".")
        second, _, tail = rest.partition(".")
        if tail:
            yield f"{first}_{second}.{tail}", name


def _torchvisions(base: str, whole: list[str]) -> dict[str, str]:
    if base not in _TORCHVISION:
        return {}
    with torch.device("meta"):
        theirs = torchvision.models.get_model(_TORCHVISION[base], weights=None)
    return dict(zip(theirs.state_dict(), whole, strict=True))


def _efficientnet_pytorch(whole: list[str]) -> dict[str, str]:
    """efficientnet_pytorch's names for the tensors of timm's EfficientNets."""
    blocks = list(dict.fromkeys(m[0] for n in whole if (m := re.match(r"blocks\.\d+\.\d+", n))))
    names = set(whole)
    if not blocks or "conv_stem.weight" not in names:
        return {}
    parts = dict(_AROUND)
    for number, block in enumerate(blocks):
        expands = f"{block}.conv_pwl.weight" in names
        for theirs, ours in (_EXPANDING if expands else _NOT_EXPANDING).items():
            parts[f"_blocks.{number}.{theirs}"] = f"{block}.{ours}"
    by_part = {ours: theirs for theirs, ours in parts.items()}
    aliases = {}
    for name in whole:
        part, _, leaf = name.rpartition(".")
        if part in by_part:
            aliases[f"{by_part[part]}.{leaf}"] = name
    return aliases
