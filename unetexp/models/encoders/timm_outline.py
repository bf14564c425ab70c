"""What a timm model looks like as an encoder, found out without computing anything.

timm is imported where it is used: it takes half a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

from unetexp.errors import ConfigError

_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"strict_img_size": False})
_MULTIPLES = (32, 64, 128, 192, 224, 256, 384, 448, 512)
_NEEDED = (4, 8, 16, 32)
_CHAINS = ("FeatureListNet", "EfficientNetFeatures", "MobileNetV3Features")


class Outline(NamedTuple):
    """A timm model as a chain of layers."""

    taps: Mapping[int, str]  # stride -> the layer that gives its feature
    channels: Mapping[int, int]  # of the feature of each stride
    multiple: int  # of which H and W have to be
    options: Mapping[str, Any]  # of timm.create_model


@cache
def outline_of(name: str) -> Outline:
    """The outline of the model of that name.

    Raises ConfigError for one without features of strides 4, 8, 16 and 32, one that takes images
    of a single size, and one that is no chain of layers.
    """
    for options in _OPTIONS:
        model = _without_values(name, options)
        if model is None:
            continue
        taps, channels = _features(name, model)
        for multiple in _MULTIPLES:
            if _gives(model, list(channels), multiple):
                return Outline(taps, channels, multiple, options)
    raise ConfigError(
        f"{name!r} takes images of a single size, and an encoder is given images of any. Choose "
        "another model of timm."
    )


def layers_of(model: nn.Module, taps: Mapping[int, str]) -> list[tuple[str, nn.Module]]:
    """The modules from the image to the last tap, in order, with their names in the model.

    A module that contains a tap is itself a chain, of which the parts are given.
    """
    layers = []
    last = taps[max(taps)]
    for name, module in _links(model, frozenset(taps.values()), ""):
        layers.append((name, module))
        if name == last:
            break
    return layers


def _links(module: nn.Module, taps: frozenset[str], prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = prefix + name
        if path not in taps and any(tap.startswith(f"{path}.") for tap in taps):
            yield from _links(child, taps, f"{path}.")
        else:
            yield path, child


def _without_values(name: str, options: Mapping[str, Any]) -> nn.Module | None:
    """timm's own extractor of features on the meta device; None if it takes no such options.

    Raises ConfigError for a model without features.
    """
    import timm

    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(
                name, pretrained=False, features_only=True, **options
            ).eval()
    except TypeError:  # an argument that the model does not know
        if options:
            return None
        raise
    except RuntimeError as error:
        raise _no_pyramid(name, f"timm gives no features of it ({error})") from None
    return model


def _features(name: str, model: Any) -> tuple[dict[int, str], dict[int, int]]:
    """The tap and the channels of each stride from 2 to 32 that the model has."""
    found = model.feature_info.get_dicts(keys=["reduction", "module", "num_chs"])
    taps = {info["reduction"]: info["module"] for info in found}
    channels = {info["reduction"]: info["num_chs"] for info in found}
    missing = [str(stride) for stride in _NEEDED if stride not in taps]
    if missing:
        strides = ", ".join(map(str, sorted(taps)))
        raise _no_pyramid(
            name, f"it has features of stride {strides} and none of {', '.join(missing)}"
        )
    if type(model).__name__ not in _CHAINS:
        raise _no_pyramid(name, "its features are not those of a chain of layers")
    kept = [stride for stride in (2, *_NEEDED) if stride in taps]
    return {s: taps[s] for s in kept}, {s: channels[s] for s in kept}


def _gives(model: nn.Module, strides: list[int], multiple: int) -> bool:
    """Whether the model takes images of multiples of that, and gives features of the strides."""
    height, width = multiple, 3 * multiple
    try:
        with torch.no_grad():
            features = model(torch.empty(1, 3, height, width, device="meta"))
    except Exception:  # models say in many ways that they do not take a size
        return False
    sizes = {tuple(feature.shape[1:3]) for feature in features}
    sizes |= {tuple(feature.shape[2:]) for feature in features}
    return all((height // stride, width // stride) in sizes for stride in strides)


def _no_pyramid(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"{name!r} cannot be an encoder: {why}, and a U-Net needs those of stride 4, 8, 16 and 32. "
        "Choose another model of timm, such as tf_efficientnet_lite0, convnext_tiny or "
        "swin_tiny_patch4_window7_224; plain Vision Transformers are encoders of "
        "encoder.kind=vit."
    )
