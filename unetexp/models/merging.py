"""Models that are built alike, saved as one: with averaged probabilities or averaged weights.

Averaged weights are the uniform soup of Wortsman et al., "Model soups" (arXiv:2203.05482). They
need statistics of batch norm of their own: `unetexp.training.soup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unetexp.errors import CheckpointError
from unetexp.models.saved_model import ModelSpec, load, read_description, read_spec, write_model
from unetexp.models.unet import UNet

MERGED = "merged"  # in the config.json of such a model: how, and of which models


def write_ensemble(folders: Sequence[Path], target: Path) -> None:
    """Write the models in `folders` into `target` as one that averages their probabilities.

    Raises CheckpointError for models that are not built alike.
    """
    spec = _common_spec(folders)
    weights = {
        f"members.{index}.{name}": value
        for index, folder in enumerate(folders)
        for name, value in load(folder).state_dict().items()
    }
    several = spec.model_copy(update={"members": len(folders)})
    write_model(target, weights, _description(folders, several, "probabilities"))


def write_soup(model: UNet, folders: Sequence[Path], target: Path) -> None:
    """Write `model`, the average of those in `folders`, into `target`."""
    description = _description(folders, _common_spec(folders), "weights")
    write_model(target, model.state_dict(), description)


def averaged_weights(folders: Sequence[Path]) -> UNet:
    """The model whose weights and buffers are the means of those in `folders`.

    Raises CheckpointError for models that are not built alike.
    """
    model = _common_spec(folders).build()
    states = [load(folder).state_dict() for folder in folders]
    mean = {name: _mean([state[name] for state in states]) for name in states[0]}
    model.load_state_dict(mean)
    return model.eval()


def _mean(values: Sequence[Tensor]) -> Tensor:
    """Of whole numbers, which count batches, the first."""
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).to(values[0].dtype)


def _common_spec(folders: Sequence[Path]) -> ModelSpec:
    specs = [read_spec(folder) for folder in folders]
    for folder, spec in zip(folders, specs, strict=True):
        if spec != specs[0]:
            raise CheckpointError(
                f"{folder}: this model is built otherwise than that of {folders[0]}, so the two "
                "cannot become one."
            )
    return specs[0]


def _description(folders: Sequence[Path], spec: ModelSpec, averaged: str) -> dict[str, Any]:
    """That of the first model, with what was averaged; the epoch is the last of theirs."""
    descriptions = [read_description(folder) for folder in folders]
    own = {
        "averaged": averaged,
        "seeds": [each["train"]["seed"] for each in descriptions],
        "epochs": [each["epoch"] for each in descriptions],
    }
    latest = max(own["epochs"])
    return {**descriptions[0], "model": spec.tree(), "epoch": latest, MERGED: own}
