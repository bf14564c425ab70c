"""The decoder's settings, and the widths that they make over an encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unetexp.component import Component
from unetexp.models.decoders.attention import Attention
from unetexp.models.decoders.upsampling import Upsampling

DecoderKind = Literal["classic", "slim", "lite"]

BLOCKS = 5

_WIDTHS: dict[DecoderKind, tuple[int, ...]] = {
    "slim": (256, 128, 64, 32, 16),
    "lite": (128, 64, 32, 16, 8),
}
_STEP = 8  # of widths that are computed: what tensor cores like

Width = Annotated[int, Field(ge=1, le=4096)]


class Decoder(Component):
    """How features become a mask: the up blocks, their widths, and the way they upsample."""

    kind: DecoderKind = Field(
        "slim",
        description="classic: wide, with a bridge; slim: narrow; lite: depthwise separable "
        "convolutions and none at full resolution, for real time",
    )
    upsampling: Upsampling = Field("conv_transpose", description="how an up block doubles H and W")
    attention: Attention = Field(
        "none",
        description="scse: each up block's feature is weighted by channel and by pixel. Its "
        "channels are weighted by the whole image, which tiles of a large one do not see",
    )
    deep_supervision: float = Field(
        0.0,
        ge=0,
        le=10,
        description="weight of the mean loss of auxiliary heads at strides 16, 8, 4 and 2 beside "
        "the mask's own; they exist in training only; 0: none",
    )
    widths: tuple[Width, Width, Width, Width, Width] | None = Field(
        None,
        description="output channels of the five up blocks, the deepest first; null: the kind's",
    )
    width_factor: float = Field(
        1.0,
        gt=0,
        le=8,
        description="multiplies the widths, which are then rounded to multiples of 8, at least 8",
    )

    def widths_over(self, deepest: int) -> tuple[int, ...]:
        """Output channels of the five up blocks on an encoder that ends in `deepest` channels.

        classic halves from block to block: 1024, 512, 256, 128, 64 over a ResNet-50. Widths that
        are given stay as they are while the factor is 1.
        """
        if self.widths is not None and self.width_factor == 1:
            return self.widths
        widths = self.widths or _WIDTHS.get(self.kind) or _halved(deepest)
        return tuple(_rounded(width * self.width_factor) for width in widths)


def _halved(channels: int) -> tuple[float, ...]:
    return tuple(channels / 2**step for step in range(1, BLOCKS + 1))


def _rounded(width: float) -> int:
    """The nearest multiple of the step, the upper one from the middle on."""
    return max(_STEP, int(width / _STEP + 0.5) * _STEP)
