"""The initial weights of an encoder: choosing and loading them, and the input they expect."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from unetexp.compute.on_device import constant
from unetexp.errors import CheckpointError, ConfigError, WeightsUnavailableError
from unetexp.models.encoders import WEIGHTS_NAMES, Encoder, FeatureEncoder
from unetexp.models.unet import UNet
from unetexp.models.weights.imagenet import fetch_imagenet, find_imagenet
from unetexp.models.weights.state_dict_check import as_state_dict, check_state_dict

_CACHE = "torch hub's cache of ImageNet weights"


class ResolvedWeights(NamedTuple):
    """An encoder with its weights chosen, and a warning about them, if any."""

    encoder: Encoder
    warning: str | None


class Normalization(NamedTuple):
    """Per-channel mean and standard deviation, for images scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def resolve_weights(encoder: Encoder, *, download: bool = True) -> ResolvedWeights:
    """Choose the encoder's initial weights, before anything depends on them.

    The result's weights are imagenet, none or the absolute path of a checked file. auto becomes
    imagenet if available, else none, and the warning says so and why. With `download` imagenet is
    in torch hub's cache afterwards; without, only its availability is checked. Raises
    WeightsUnavailableError if imagenet is not available or the file does not exist, and
    CheckpointError for a file that does not fit the encoder.
    """
    if encoder.weights == "none":
        return ResolvedWeights(encoder, untrained_warning(encoder))
    if encoder.weights not in WEIGHTS_NAMES:
        path = str(Path(encoder.weights).expanduser().resolve())
        _fitting(encoder, read_tensors(Path(path)), path)
        return ResolvedWeights(encoder.model_copy(update={"weights": path}), None)
    try:
        if download:
            _fitting(encoder, fetch_imagenet(encoder.name), _CACHE)
        else:
            find_imagenet(encoder.name)
    except WeightsUnavailableError as error:
        if encoder.weights == "imagenet":
            raise
        random = encoder.model_copy(update={"weights": "none"})
        warning = f"encoder.weights=auto: the encoder starts from RANDOM weights. {error}"
        return ResolvedWeights(
            random, "\n".join(filter(None, [warning, untrained_warning(random)]))
        )
    pretrained = encoder.model_copy(update={"weights": "imagenet"})
    auto = encoder.weights == "auto"
    return ResolvedWeights(pretrained, "encoder.weights=auto: imagenet is used." if auto else None)


def untrained_warning(encoder: Encoder) -> str | None:
    """The warning about a frozen encoder with random weights, else None."""
    if encoder.weights != "none" or encoder.freeze == "none":
        return None
    until = f" until epoch {encoder.thaw_epoch}" if encoder.thaw_epoch else ""
    return (
        f"encoder.freeze={encoder.freeze} freezes random weights{until}, because "
        "encoder.weights=none: that part of the encoder learns nothing."
    )


def load_encoder_weights(model: UNet, encoder: Encoder) -> None:
    """Load what `encoder.weights` names into the model's encoder; none changes nothing.

    A first convolution for other than three channels gets the RGB filters adapted. Raises
    WeightsUnavailableError and CheckpointError as `resolve_weights` does, and ConfigError for
    auto, which only that function can resolve.
    """
    if encoder.weights == "none":
        return
    if encoder.weights == "auto":
        raise ConfigError(
            "encoder.weights: 'auto' must be resolved first, once for all runs that share it "
            "(unetexp.resolve_weights)."
        )
    in_channels = model.encoder.channels[0]
    if encoder.weights == "imagenet":
        state = _fitting(encoder, fetch_imagenet(encoder.name), _CACHE, in_channels)
    else:
        given = read_tensors(Path(encoder.weights))
        state = _fitting(encoder, given, encoder.weights, in_channels)
    first = [f"{name}.weight" for name in model.encoder.first_convolutions]
    adapted = {name: adapt_filters(state[name], in_channels) for name in first}
    model.encoder.load_state_dict({**state, **adapted})


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


def read_tensors(path: Path) -> object:
    """The content of a .safetensors, .pth or .pt file, usually tensors; no code in it is run.

    Raises WeightsUnavailableError if there is no such file and CheckpointError if it cannot be
    read.
    """
    path = path.expanduser()
    if not path.is_file():
        raise WeightsUnavailableError(f"{path}: there is no such weights file. Check the path.")
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is damaged, or holds Python objects besides tensors, which are not loaded "
            "because they can run code. Save model.state_dict() alone."
        ) from None
    except Exception as error:  # damaged files make the readers raise almost anything
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from None


def _fitting(
    encoder: Encoder, given: object, origin: str, in_channels: int | None = None
) -> dict[str, Tensor]:
    """The content of `origin` as tensors for the encoder, names and shapes checked.

    `fc.*` is left out. The first convolution may be for RGB or for `in_channels`; None
    allows any number. Raises CheckpointError.
    """
    source = f"{origin} as weights of {encoder.name}"
    tensors = as_state_dict(given, source)
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    with torch.device("meta"):
        expected: FeatureEncoder = encoder.build(3)
        first = state.get(f"{expected.first_convolutions[0]}.weight")
        channels = first.shape[1] if first is not None and first.ndim == 4 else 3
        if channels != 3 and in_channels in (None, channels):
            expected = encoder.build(channels)
    check_state_dict(state, {n: t.shape for n, t in expected.state_dict().items()}, source)
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{source}: {broken[0]} holds NaN or infinite values. Save it again.")
    return state
