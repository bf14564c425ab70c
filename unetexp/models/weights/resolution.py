"""The initial weights of an encoder: choosing and loading them, and the input they expect."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from unetexp.compute.on_device import constant
from unetexp.errors import WeightsUnavailableError
from unetexp.models.encoders import WEIGHTS_NAMES, Encoder
from unetexp.models.image_spec import Normalization as Normalization
from unetexp.models.unet import UNet
from unetexp.models.weights.layout import layout_of
from unetexp.models.weights.packaged import package_of
from unetexp.models.weights.provenance import RANDOM, Provenance
from unetexp.models.weights.sources import (
    find_pretrained,
    pretrained_tensors,
    unresolved,
    weights_provenance,
)


class ResolvedWeights(NamedTuple):
    """An encoder with its weights chosen, and a warning about them, if any."""

    encoder: Encoder
    warning: str | None


def resolve_weights(
    encoder: Encoder, *, download: bool = True, in_channels: int | None = None
) -> ResolvedWeights:
    """Choose the encoder's initial weights, before anything depends on them.

    The result's weights are imagenet, packaged, none or the absolute path of a checked file. auto
    becomes the first that is available: packaged where a package has the encoder's weights and is
    installed, imagenet, and none; the warning says which and why. With `download` imagenet is in
    the cache of torch hub, or for timm's models of the Hugging Face hub, afterwards; without, only
    its availability is checked. Weights of a file must be for RGB images or for `in_channels`,
    unless that is None.

    Raises WeightsUnavailableError if imagenet is not available, the package is not installed or
    the file does not exist, ConfigError for packaged where no package has weights of this encoder,
    and CheckpointError for a file that does not fit the encoder.
    """
    if encoder.weights == "none":
        return ResolvedWeights(encoder, untrained_warning(encoder))
    if encoder.weights == "auto":
        return _automatic(encoder, download)
    if encoder.weights not in WEIGHTS_NAMES:
        path = str(Path(encoder.weights).expanduser().resolve())
        encoder = encoder.model_copy(update={"weights": path})
        pretrained_tensors(encoder, in_channels)
    else:
        _require(encoder, download)
    return ResolvedWeights(encoder, None)


def _automatic(encoder: Encoder, download: bool) -> ResolvedWeights:
    """The first of packaged, imagenet and none that can be had."""
    problems = []
    package = package_of(encoder)
    sources = {"packaged": f", that of {package.name}"} if package else {}
    for weights, whence in {**sources, "imagenet": ""}.items():
        chosen = encoder.model_copy(update={"weights": weights})
        try:
            _require(chosen, download)
        except WeightsUnavailableError as error:
            problems.append(str(error))
            continue
        chose = f"encoder.weights=auto: {weights} is used{whence}."
        return ResolvedWeights(chosen, " ".join([chose, *problems]))
    random = encoder.model_copy(update={"weights": "none"})
    warning = " ".join(["encoder.weights=auto: the encoder starts from RANDOM weights.", *problems])
    return ResolvedWeights(random, "\n".join(filter(None, [warning, untrained_warning(random)])))


def _require(encoder: Encoder, download: bool) -> None:
    if download:
        pretrained_tensors(encoder)
    else:
        find_pretrained(encoder)


def untrained_warning(encoder: Encoder) -> str | None:
    """The warning about a frozen encoder with random weights, else None."""
    if encoder.weights != "none" or encoder.freeze == "none":
        return None
    until = f" until epoch {encoder.thaw_epoch}" if encoder.thaw_epoch else ""
    return (
        f"encoder.freeze={encoder.freeze} freezes random weights{until}, because "
        "encoder.weights=none: that part of the encoder learns nothing."
    )


def load_encoder_weights(model: UNet, encoder: Encoder) -> Provenance:
    """Load what `encoder.weights` names into the model's encoder; none changes nothing.

    A first convolution for other than three channels gets the RGB filters adapted. Returns where
    the weights came from. Raises WeightsUnavailableError and CheckpointError as `resolve_weights`
    does, and ConfigError for auto, which only that function can resolve.
    """
    if encoder.weights == "none":
        return RANDOM
    if encoder.weights == "auto":
        raise unresolved()
    in_channels = model.encoder.channels[0]
    tensors = pretrained_tensors(encoder, in_channels)
    layout = layout_of(encoder)
    for name in layout.by_channels:
        tensors[name] = adapt_filters(tensors[name], in_channels)
    state = {layout.prefix + name: tensor for name, tensor in tensors.items()}
    model.encoder.load_state_dict(state, strict=False)  # all of them were checked
    return weights_provenance(encoder)


def adapt_filters(filters: Tensor, in_channels: int) -> Tensor:
    """(F, 3, height, width) RGB filters for another number of input channels.

    They are repeated in turn, and each is divided by how often it occurs; one that does not occur,
    as there are fewer channels than filters, goes to all channels in equal parts. A grey image, the
    same in all channels, thus gives what its three equal channels gave.
    """
    given = filters.shape[1]
    if given == in_channels:
        return filters
    shares = filters.new_zeros(given, in_channels)
    for channel in range(given):
        places = slice(channel, None, given) if channel < in_channels else slice(None)
        shares[channel, places] = 1 / len(range(in_channels)[places])
    return (filters[:, :, None] * shares[:, :, None, None]).sum(dim=1)


def input_normalization(encoder: Encoder, channels: int) -> Normalization:
    """What the encoder's weights expect of images scaled to 0..1, `channels` channels.

    The mean and standard deviation that its pretrained weights were trained with, also for local
    files and for random weights; the mean of the three for each channel of images that are not RGB.
    """
    mean, std = encoder.mean_and_std
    if channels == 3:
        return Normalization(mean, std)
    return Normalization((sum(mean) / 3,) * channels, (sum(std) / 3,) * channels)


def to_input(images: Tensor, normalization: Normalization) -> Tensor:
    """Images (N, C, H, W) scaled to 0..1 -> what the encoder's weights expect."""
    mean = constant(normalization.mean, images).view(1, -1, 1, 1)
    std = constant(normalization.std, images).view(1, -1, 1, 1)
    return (images - mean) / std
