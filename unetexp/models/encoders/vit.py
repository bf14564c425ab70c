"""Plain Vision Transformers as timm builds them, with a simple feature pyramid.

Letters: N batch, C channels of the image, D of the transformer, H W height and width of the image,
P the side of a patch. timm is imported where it is used: it takes half a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from unetexp.errors import not_a_choice
from unetexp.models.encoders.base import EncoderSettings, FeatureEncoder, FreezeLevel
from unetexp.models.encoders.feature_pyramid import SimpleFeaturePyramid, resample
from unetexp.models.encoders.rotary_embedding import RotaryEmbedding
from unetexp.models.encoders.timm_names import timm_names, vit_names
from unetexp.models.layout import AlignedConv2d, is_channels_last, is_exported, repeat_border

_UNDECAYED = frozenset(["vit.cls_token", "vit.dist_token", "vit.reg_token", "vit.pos_embed"])
_CLASSIFIERS = ("attn_pool", "fc_norm", "head_drop", "head", "head_dist")
_BLOCK = re.compile(r"block(\d+)")


class ViT(EncoderSettings):
    """A plain Vision Transformer as timm builds it: ViT, DeiT, DINOv2 or DINOv3."""

    kind: Literal["vit"] = "vit"
    name: str = Field(
        "vit_small_patch16_224",
        description="one of timm's vit_*, deit_*, deit3_*, vit_*_dinov2 and vit_*_dinov3, with or "
        "without the tag of its weights (vit_small_patch16_224.augreg_in21k)",
    )
    freeze: str = Field(  # type: ignore[assignment]  # more levels than other families have
        "none",
        description="frozen up to and including this part: none, stem (the patch, position and "
        "prefix embeddings), blockN (the first N blocks too), stage1, stage2, stage3 (a quarter, "
        "half and three quarters of the blocks) or all; the feature pyramid always learns",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="each block learns at this fraction of the rate of the block after it",
    )

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        if name in vit_names():
            return name
        if name in timm_names():
            raise ValueError(f"{name!r} is no plain Vision Transformer: set encoder.kind=timm.")
        near = get_close_matches(name, sorted(vit_names()), n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"{name!r} is not a plain Vision Transformer of timm.{hint} timm.list_models('vit_*') "
            "and 'deit*' list them."
        )

    @field_validator("freeze")
    @classmethod
    def _known_level(cls, level: str, given: ValidationInfo) -> str:
        name = given.data.get("name")
        if level in get_args(FreezeLevel) or name is None:  # a wrong name is reported alone
            return level
        depth = depth_of(name)
        block = _BLOCK.fullmatch(level)
        if block is None:
            sentence = not_a_choice("", level, get_args(FreezeLevel)).removeprefix(": ")
            raise ValueError(f"{sentence}, or block1 to block{depth} of {name}")
        if level not in levels_of(depth):
            raise ValueError(
                f"{level!r} is given, and {name} has {depth} blocks. Give block1 to block{depth}."
            )
        return level

    @property
    def levels(self) -> tuple[str, ...]:
        """What `freeze` may be, each level freezing what the one before it does, or more."""
        return tuple(levels_of(depth_of(self.name)))

    @property
    def mean_and_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Of RGB images scaled to 0..1, as timm's weights of this name were trained with."""
        import timm

        weights = timm.get_pretrained_cfg(self.name)
        return weights.mean, weights.std

    def build(self, in_channels: int) -> ViTEncoder:
        """The encoder with random weights for images of so many channels, nothing frozen."""
        return ViTEncoder(self.name, in_channels, self.layer_decay)


class ViTEncoder(FeatureEncoder):
    """A Vision Transformer without its classifier, and a simple feature pyramid on its last map.

    An Image is Worth 16x16 Words, Dosovitskiy et al. 2021 (arXiv:2010.11929), and its descendants,
    as timm builds them; in `vit` parameters have timm's names. Position embeddings are resampled
    for the image's size; the map of a patch of 14 is resampled to stride 16. There is no feature of
    stride 2. See `SimpleFeaturePyramid` for the others.
    """

    first_convolutions = ("vit.patch_embed.proj",)
    always_learning = ("pyramid",)
    undecayed = _UNDECAYED

    def __init__(self, name: str, in_channels: int = 3, layer_decay: float = 1.0) -> None:
        """Random weights as timm draws them; `in_channels` is C of the images."""
        super().__init__()
        self.name = name
        self.vit = _headless(name, in_channels)
        self.patch: int = self.vit.patch_embed.patch_size[0]
        self.depth = len(self.vit.blocks)
        self.layer_decay = layer_decay
        self.stride = next(stride for stride in (8, 16, 32) if stride >= self.patch)
        self.pyramid = SimpleFeaturePyramid(self.vit.embed_dim, self.stride)
        self.channels = (in_channels, 0, *self.pyramid.channels)
        self.parts = levels_of(self.depth, tuple(f"vit.{part}" for part in _stem(self.vit)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, H, W), H and W multiples of 32 -> six features, that of stride 2 without channels.

        Frozen blocks have no graph, because nothing that enters them needs gradients.
        """
        batch, _, height, width = image.shape
        nothing = image.new_empty(batch, 0, height // 2, width // 2)
        feature = self.feature_map(image)
        if self.patch != self.stride:
            feature = resample(feature, self.patch, self.stride)
        return [image, nothing, *self.pyramid(feature)]

    def feature_map(self, image: Tensor) -> Tensor:
        """(N, C, H, W) -> the last map, normalised, (N, D, ceil(H / P), ceil(W / P)).

        Images are padded to whole patches; prefix tokens (class, registers) are left out.
        """
        height, width = (-(-side // self.patch) for side in image.shape[-2:])
        tokens = self.vit.forward_features(self._of_whole_patches(image))
        grid = tokens[:, self.vit.num_prefix_tokens :].unflatten(1, (height, width))
        feature: Tensor = grid.permute(0, 3, 1, 2)
        return feature if is_channels_last(image) else feature.contiguous()

    def lr_factor(self, parameter: str) -> float:
        """`layer_decay` to the number of layers behind the parameter's own.

        As timm's `param_groups_layer_decay` and BEiT (arXiv:2106.08254) count: the stem is the
        first layer and each block one; the pyramid stands where the classifier stood, behind all.
        The norm is of the last block's layer, as in timm; BEiT's is behind it.
        """
        _, *path = parameter.split(".")
        if parameter.startswith("pyramid."):
            behind = 0
        elif path[0] == "norm":
            behind = 1
        elif path[0] == "blocks":
            behind = self.depth - int(path[1])
        else:
            behind = self.depth + 1
        return self.layer_decay**behind

    @property
    def deepest(self) -> list[nn.Module]:
        """The pyramid's level of stride 32."""
        return [self.pyramid.levels[-1]]

    def _of_whole_patches(self, image: Tensor) -> Tensor:
        if self.size_multiple % self.patch == 0:
            return image
        below, right = -image.shape[-2] % self.patch, -image.shape[-1] % self.patch
        if is_exported():
            return F.pad(image, (0, right, 0, below), mode="replicate")
        return repeat_border(image, right, below)


@cache
def depth_of(name: str) -> int:
    """The number of blocks of a Vision Transformer."""
    with torch.device("meta"):
        return len(_headless(name, in_channels=3).blocks)


def levels_of(depth: int, stem: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """For each level of freezing what it freezes beyond the one before; stages: a quarter each."""
    stages = {depth * quarter // 4: f"stage{quarter}" for quarter in (1, 2, 3)}
    levels = {"none": (), "stem": stem}
    for number in range(1, depth + 1):
        levels[f"block{number}"] = (f"vit.blocks.{number - 1}",)
        if number in stages:
            levels[stages[number]] = ()
    return {**levels, "all": ("vit.norm",)}


def _headless(name: str, in_channels: int) -> Any:
    """timm's model for any size, with all that comes after the last map left out."""
    import timm

    vit = timm.create_model(
        name, pretrained=False, in_chans=in_channels, num_classes=0, dynamic_img_size=True
    )
    for part in _CLASSIFIERS:
        setattr(vit, part, nn.Identity())
    vit.patch_embed.proj.__class__ = AlignedConv2d  # of the same fields as timm's nn.Conv2d
    if getattr(vit, "rope", None) is not None:
        vit.rope = RotaryEmbedding(vit.rope)
    return vit


def _stem(vit: nn.Module) -> Iterator[str]:
    """The names of the modules and parameters before the blocks."""
    for name, _ in (*vit.named_children(), *vit.named_parameters(recurse=False)):
        if name not in ("blocks", "norm", *_CLASSIFIERS):
            yield name
