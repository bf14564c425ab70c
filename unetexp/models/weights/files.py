"""Weights in a file of the user's; nothing in it is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import safetensors.torch
import torch

from unetexp.errors import CheckpointError, WeightsUnavailableError


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
