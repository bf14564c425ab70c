"""The decoder: its settings, the up blocks of each kind, upsampling, attention."""

from __future__ import annotations

from unetexp.models.decoders.attention import Attention, ScSE
from unetexp.models.decoders.blocks import (
    ConvBlock,
    LiteLastBlock,
    LiteUpBlock,
    SeparableBlock,
    UpBlock,
)
from unetexp.models.decoders.settings import Decoder, DecoderKind
from unetexp.models.decoders.upsampling import UpConvolution, Upsampling, make_upsampling

__all__ = [
    "Attention",
    "ConvBlock",
    "Decoder",
    "DecoderKind",
    "LiteLastBlock",
    "LiteUpBlock",
    "ScSE",
    "SeparableBlock",
    "UpBlock",
    "UpConvolution",
    "Upsampling",
    "make_upsampling",
    "up_blocks",
]


def up_blocks(
    decoder: Decoder, skips: tuple[int, ...], deepest: int
) -> list[UpBlock | LiteLastBlock]:
    """The five blocks over an encoder with `skips` channels at strides 1 to 16, then `deepest`."""
    widths = decoder.widths_over(deepest)
    kinds: list[type[UpBlock | LiteLastBlock]] = [UpBlock] * len(widths)
    if decoder.kind == "lite":
        kinds = [*[LiteUpBlock] * (len(widths) - 1), LiteLastBlock]
    sizes = zip(kinds, (deepest, *widths[:-1]), reversed(skips), widths, strict=True)
    return [
        kind(below, skip, width, decoder.upsampling, decoder.attention)
        for kind, below, skip, width in sizes
    ]
