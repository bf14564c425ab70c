"""The encoders' families: a configured part for each, all with one interface."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from unetexp.models.encoders.base import (
    WEIGHTS_NAMES,
    WEIGHTS_SUFFIXES,
    EncoderSettings,
    FeatureEncoder,
    FreezeLevel,
)
from unetexp.models.encoders.resnet import ResNet, ResNetEncoder, ResNetName
from unetexp.models.encoders.timm_features import Timm, TimmEncoder
from unetexp.models.encoders.timm_names import timm_names, vit_names
from unetexp.models.encoders.vit import ViT, ViTEncoder

__all__ = [
    "WEIGHTS_NAMES",
    "WEIGHTS_SUFFIXES",
    "Encoder",
    "EncoderSettings",
    "FeatureEncoder",
    "FreezeLevel",
    "ResNet",
    "ResNetEncoder",
    "ResNetName",
    "Timm",
    "TimmEncoder",
    "ViT",
    "ViTEncoder",
    "family_of",
]


def _of_a_family(tree: Any) -> Any:
    """Configs from before there were several families name none."""
    return {"kind": "resnet", **tree} if isinstance(tree, dict) else tree


Encoder = Annotated[
    ResNet | Timm | ViT,
    Field(discriminator="kind"),
    BeforeValidator(_of_a_family),
]


def family_of(name: str) -> str:
    """The `kind` that an encoder of this name has: torchvision's ResNets before timm's."""
    if name in get_args(ResNetName) or name not in timm_names():
        return "resnet"
    return "vit" if name in vit_names() else "timm"
