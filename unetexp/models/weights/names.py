"""A file's tensors under the names of the encoder that they are to fill, all of them checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from unetexp.errors import CheckpointError
from unetexp.models.encoders import EncoderSettings
from unetexp.models.weights.layout import Layout, layout_of
from unetexp.models.weights.positions import resampled
from unetexp.models.weights.state_dict_check import as_tensors, check_state_dict

_NESTED = ("state_dict", "model_state_dict", "model")
_WRAPPERS = re.compile(r"(?:module|_orig_mod|model|encoder|backbone|vit)\.")
_COMPUTED = ("relative_position_index", "attn_mask")  # buffers that older files hold


def encoder_tensors(
    encoder: EncoderSettings, given: object, origin: str, in_channels: int | None = None
) -> dict[str, Tensor]:
    """The content of `origin` as tensors for the encoder, with names of `Layout.shapes`.

    Names of torchvision, timm, segmentation_models_pytorch and of this package's own models are
    recognised, also behind the prefixes of wrappers and within a checkpoint's `state_dict`. The
    classifier, and what is no part of an encoder, is left out. The first convolution may be for
    RGB or for `in_channels`; None allows any number. Raises CheckpointError.
    """
    source = f"{origin} as weights of {encoder.name}"
    layout = layout_of(encoder)
    tensors = _named(layout, as_tensors(_unnested(given), source))
    expected = dict(layout.shapes)
    for name in layout.by_channels & tensors.keys():
        if tensors[name].ndim == len(expected[name]):
            expected[name] = _served(name, tensors[name], expected[name], in_channels, source)
    check_state_dict(tensors, expected, source)
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{source}: {broken[0]} holds NaN or infinite values. Save it again.")
    return tensors


def _unnested(given: object) -> object:
    """The state dict within a checkpoint that holds more than that."""
    while isinstance(given, Mapping):
        inner = next((given[k] for k in _NESTED if isinstance(given.get(k), Mapping)), None)
        if inner is None:
            break
        given = inner
    return given


def _named(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the layout's names; those that have none there keep their own.

    What lies beside the prefix that most of the encoder's tensors have is left out.
    """
    prefix = _prefix(layout.aliases, tensors)
    named = {}
    for name, tensor in tensors.items():
        if not name.startswith(prefix) or name.endswith(_COMPUTED):
            continue
        own = layout.aliases.get(name.removeprefix(prefix), name)
        if own in layout.shapes or own not in layout.aliases:
            named[own] = tensor
    return {name: _as(tensor, layout, name) for name, tensor in named.items()}


def _prefix(known: Collection[str], names: Collection[str]) -> str:
    """The wrappers' names in front of most of the encoder's own; none if nothing is recognised."""
    prefixes = {""}
    for name in names:
        end = 0
        while wrapper := _WRAPPERS.match(name, end):
            end = wrapper.end()
            prefixes.add(name[:end])

    def recognised(prefix: str) -> int:
        return sum(n.startswith(prefix) and n.removeprefix(prefix) in known for n in names)

    return max(sorted(prefixes, key=len), key=recognised)


def _as(tensor: Tensor, layout: Layout, name: str) -> Tensor:
    """In the shape of the encoder's, where only the form or the size of the images differs.

    torchvision's ConvNeXt has scales (C, 1, 1), timm's (C,).
    """
    shape = layout.shapes.get(name)
    if shape is not None and name == "pos_embed":
        return resampled(tensor, shape)
    if shape is not None and len(shape) == 1 and tensor.shape == (*shape, 1, 1):
        return tensor.flatten()
    return tensor


def _served(
    name: str, filters: Tensor, rgb: torch.Size, in_channels: int | None, source: str
) -> torch.Size:
    """The shape of a first convolution for the channels that it is for.

    Raises CheckpointError unless those are RGB or the images'.
    """
    channels = filters.shape[1]
    shape = torch.Size((rgb[0], channels, *rgb[2:]))
    if in_channels is None or channels in (rgb[1], in_channels):
        return shape
    images = "1 channel" if in_channels == 1 else f"{in_channels} channels"
    raise CheckpointError(
        f"{source}: {name} {tuple(filters.shape)} instead of {tuple(rgb)}: the weights are for "
        f"images of {channels} channels, and the data's have {images}. Give weights for "
        f"{rgb[1]} channels (RGB), which serve any number, or for {images}."
    )
