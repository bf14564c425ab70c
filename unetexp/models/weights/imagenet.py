"""ImageNet weights: torchvision's download and hash check, with a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor

from unetexp.errors import WeightsUnavailableError
from unetexp.models.weights.provenance import Provenance, of_file
from unetexp.network import no_answer, reason, socket_timeout

PATIENCE_S = 10.0


def imagenet_weights(name: str) -> Any:
    """torchvision's weights: IMAGENET1K_V2, or V1 for resnet18 and resnet34."""
    versions = torchvision.models.get_model_weights(name).__members__
    return versions.get("IMAGENET1K_V2") or versions["IMAGENET1K_V1"]


def find_imagenet(name: str) -> None:
    """Return if the weights are in torch hub's cache or their server answers within PATIENCE_S.

    Raises WeightsUnavailableError if neither. Nothing is downloaded.
    """
    weights = imagenet_weights(name)
    if _cached_file(weights).exists():
        return
    if problem := no_answer(weights.url, PATIENCE_S):
        raise _unavailable(weights, problem)


def fetch_imagenet(name: str) -> Mapping[str, Tensor]:
    """The weights as torchvision loads them: from torch hub's cache or, once, from its server.

    Raises WeightsUnavailableError if the server does not answer within PATIENCE_S or stops sending
    for that long, if the download does not match its hash, and if the cache cannot be read or
    written.
    """
    find_imagenet(name)
    weights = imagenet_weights(name)
    try:
        with socket_timeout(PATIENCE_S):
            state: Mapping[str, Tensor] = weights.get_state_dict(
                progress=True, check_hash=True, map_location="cpu", weights_only=True
            )
    except (OSError, HTTPException) as error:
        raise _unavailable(weights, reason(error)) from None
    except Exception as error:  # a damaged file makes torch.load raise almost anything
        file = _cached_file(weights)
        damaged = f"{file} is damaged ({error}): delete it" if file.exists() else str(error)
        raise _unavailable(weights, damaged) from None
    return state


def imagenet_provenance(name: str) -> Provenance:
    """What `fetch_imagenet` loaded, of the file in torch hub's cache."""
    weights = imagenet_weights(name)
    return of_file(_cached_file(weights), f"torchvision {weights}, ImageNet", "BSD-3-Clause")


def _cached_file(weights: Any) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def _unavailable(weights: Any, reason: str) -> WeightsUnavailableError:
    file = _cached_file(weights)
    return WeightsUnavailableError(
        f"The ImageNet weights {weights} are not available from {weights.url}: {reason}. "
        f"With a connection they are downloaded once. Without: copy {file.name} from another "
        f"machine into {file.parent} (TORCH_HOME moves this cache), or set encoder.weights to the "
        "path of a local file, or start from random weights with encoder.weights=none "
        "(pretrained=False in Python)."
    )
