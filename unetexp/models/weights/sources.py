"""The sources of pretrained weights by the value of `encoder.weights`, all used in one way."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from unetexp.errors import ConfigError
from unetexp.models.encoders import EncoderSettings
from unetexp.models.weights.files import read_tensors
from unetexp.models.weights.hub import fetch_from_hub, find_on_hub, hub_provenance
from unetexp.models.weights.imagenet import fetch_imagenet, find_imagenet, imagenet_provenance
from unetexp.models.weights.names import encoder_tensors
from unetexp.models.weights.packaged import find_packaged, packaged_provenance, read_packaged
from unetexp.models.weights.provenance import RANDOM, Provenance, of_file

_TORCH_CACHE = "torch hub's cache of ImageNet weights"
_HF_CACHE = "the Hugging Face cache of timm's weights"


def pretrained_tensors(
    encoder: EncoderSettings, in_channels: int | None = None
) -> dict[str, Tensor]:
    """The tensors that `encoder.weights` names: imagenet, packaged or a path; see `names`.

    The first convolution is for RGB or for `in_channels`; None allows any number. Raises
    WeightsUnavailableError, ConfigError and CheckpointError.
    """
    given: object
    match encoder.weights:
        case "imagenet" if encoder.kind == "resnet":
            given, origin = fetch_imagenet(encoder.name), _TORCH_CACHE
        case "imagenet":
            given, origin = fetch_from_hub(encoder), _HF_CACHE
        case "packaged":
            given, origin = read_packaged(encoder), str(find_packaged(encoder))
        case path:
            given, origin = read_tensors(Path(path)), path
    return encoder_tensors(encoder, given, origin, in_channels)


def find_pretrained(encoder: EncoderSettings) -> None:
    """Return if imagenet or packaged weights can be had; nothing is downloaded or loaded.

    Raises WeightsUnavailableError, and ConfigError where no package has them.
    """
    if encoder.weights == "packaged":
        find_packaged(encoder)
    elif encoder.kind == "resnet":
        find_imagenet(encoder.name)
    else:
        find_on_hub(encoder)


def weights_provenance(encoder: EncoderSettings) -> Provenance:
    """Where the initial weights come from, for weights that are resolved and can be loaded."""
    match encoder.weights:
        case "none":
            return RANDOM
        case "auto":
            raise unresolved()
        case "imagenet" if encoder.kind == "resnet":
            return imagenet_provenance(encoder.name)
        case "imagenet":
            return hub_provenance(encoder)
        case "packaged":
            return packaged_provenance(encoder)
        case path:
            return of_file(Path(path).expanduser(), f"file {path}")


def unresolved() -> ConfigError:
    """The error for weights that are still `auto`."""
    return ConfigError(
        "encoder.weights: 'auto' must be resolved first, once for all runs that share it "
        "(unetexp.resolve_weights)."
    )
