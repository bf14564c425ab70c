"""The network read back from its modules: its encoder, and each up block of the decoder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unetexp.models.decoders import ConvBlock, LiteLastBlock, ScSE, SeparableBlock, UpConvolution
from unetexp.models.encoders import Encoder, FeatureEncoder
from unetexp.models.unet import UNet
from unetexp.models.weights.provenance import RANDOM
from unetexp.models.weights.resolution import input_normalization
from unetexp.models.weights.sources import weights_provenance
from unetexp.training.proof.reading import LiveRun, Reading, common

_Outline = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes of parameters


def encoder_readings(run: LiveRun) -> Iterator[Reading]:
    """The architecture by its parameters, the origin of its weights, and what it is fed."""
    asked, live = run.config.encoder, run.state.model.encoder
    expected = _expected_outline(asked, run.data.channels)
    found = asked.name if _outline(live) == expected else _other(live)
    yield Reading("encoder.name", asked.name, found)
    start = RANDOM if asked.weights == "none" else weights_provenance(asked)
    yield Reading("encoder.weights", start.source, run.state.initial_weights.source)
    fed = input_normalization(asked, run.data.channels)
    yield Reading("encoder.name", fed, run.seen.normalization)
    if hasattr(asked, "layer_decay"):
        yield Reading("encoder.layer_decay", asked.layer_decay, getattr(live, "layer_decay", None))


def decoder_readings(run: LiveRun) -> Iterator[Reading]:
    """Kind, upsampling, attention and widths of the blocks, and the auxiliary heads."""
    asked, model = run.config.decoder, run.state.model
    blocks = list(model.up_blocks)
    yield Reading("decoder.kind", asked.kind, _kind_of(model))
    upsampling = common({_upsampling_of(block) for block in blocks})
    yield Reading("decoder.upsampling", asked.upsampling, upsampling)
    attention = common({"scse" if isinstance(b.attention, ScSE) else "none" for b in blocks})
    yield Reading("decoder.attention", asked.attention, attention)
    widths = tuple(_width_of(block) for block in blocks)
    for name in ("decoder.widths", "decoder.width_factor"):
        yield Reading(name, asked.widths_over(model.encoder.channels[-1]), widths)
    heads = 4 if asked.deep_supervision else 0
    found = run.seen.auxiliary
    yield Reading(
        "decoder.deep_supervision", f"{heads} auxiliary heads", f"{found} auxiliary heads"
    )


@lru_cache(maxsize=64)
def _expected_outline(encoder: Encoder, channels: int) -> _Outline:
    """Of the encoder as its family builds it, without memory for its weights."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _outline(encoder.build(channels))


def _outline(encoder: nn.Module) -> _Outline:
    return tuple((name, tuple(each.shape)) for name, each in encoder.named_parameters())


def _other(live: FeatureEncoder) -> str:
    parameters = sum(parameter.numel() for parameter in live.parameters())
    return f"another network ({live.name}, {parameters:,} parameters)"


def _kind_of(model: UNet) -> str:
    if any(isinstance(block, LiteLastBlock) for block in model.up_blocks):
        return "lite"
    separable = any(isinstance(module, SeparableBlock) for module in model.up_blocks.modules())
    bridged = any(isinstance(module, ConvBlock) for module in model.bridge.modules())
    return "unknown" if separable else "classic" if bridged else "slim"


def _upsampling_of(block: nn.Module) -> str:
    """What an up block doubles height and width with, by its modules."""
    module = block.get_submodule("upsample")
    if isinstance(module, UpConvolution):
        return "conv_transpose"
    for part in module.modules():
        if isinstance(part, nn.PixelShuffle):
            return "pixel_shuffle"
        if isinstance(part, nn.Upsample):
            return str(part.mode)
    return type(module).__name__


def _width_of(block: nn.Module) -> int:
    """Output channels of an up block, from its weights."""
    if isinstance(block, LiteLastBlock):
        *_, last = (m for m in block.upsample.modules() if isinstance(m, _CONVOLUTIONS))
        shuffled = any(isinstance(m, nn.PixelShuffle) for m in block.upsample.modules())
        return last.out_channels // (4 if shuffled else 1)
    *_, norm = (m for m in block.modules() if isinstance(m, _BatchNorm))
    return int(norm.num_features)


_CONVOLUTIONS = nn.Conv2d | nn.ConvTranspose2d
