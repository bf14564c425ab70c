"""A finished model on disk: `model.safetensors` and the `config.json` that rebuilds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from unetexp.component import decode
from unetexp.errors import CheckpointError, ConfigError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder
from unetexp.models.ensemble import Ensemble
from unetexp.models.image_spec import ImageSpec
from unetexp.models.unet import UNet, build_unet
from unetexp.models.weights.provenance import Provenance
from unetexp.models.weights.resolution import input_normalization
from unetexp.version import __version__

if TYPE_CHECKING:
    from unetexp.data import Dataset
    from unetexp.training.config import TrainConfig

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class ModelSpec(ImageSpec):
    """What a model needs to be rebuilt and used, apart from its weights."""

    encoder: Encoder
    decoder: Decoder
    folds: int | None = Field(
        None, ge=2, description="number of models of cross-validation, which predict together"
    )
    members: int | None = Field(
        None, ge=2, description="number of models of different seeds, which predict together"
    )

    def build(self) -> UNet:
        """The model with untrained weights."""
        if self.members:
            one = self.model_copy(update={"members": None})
            return Ensemble([one.build() for _ in range(self.members)])
        form = (self.encoder, self.decoder, len(self.class_names), self.in_channels)
        if self.folds:
            return Ensemble([build_unet(*form) for _ in range(self.folds)])
        return build_unet(*form)


def model_spec(config: TrainConfig, data: Dataset) -> ModelSpec:
    """The spec of the model that `config` trains on `data`."""
    normalization = input_normalization(config.encoder, data.channels)
    return ModelSpec(
        class_names=data.class_names,
        in_channels=data.channels,
        image_max=data.image_max,
        input=data.form if data.form and data.form.changes() else None,
        mean=normalization.mean,
        std=normalization.std,
        encoder=config.encoder,
        decoder=config.decoder,
        folds=len(data.folds) or None,
        resize=data.resize,
    )


def save_model(
    folder: Path,
    model: UNet,
    config: TrainConfig,
    data: Dataset,
    epoch: int,
    initial: Provenance | None = None,
) -> None:
    """Write weights and config into `folder`, which exists.

    `initial` tells where the encoder's weights came from when training started.
    """
    save_weights(folder, model.state_dict(), config, data, epoch, initial)


def save_weights(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: TrainConfig,
    data: Dataset,
    epoch: int,
    initial: Provenance | None = None,
) -> None:
    """As `save_model`, of a model's state dict."""
    description = {
        "unetexp": __version__,
        "model": model_spec(config, data).tree(),
        "train": config.tree(),
        "epoch": epoch,
        "data_fingerprint": data.fingerprint,
        **({"initial_weights": initial.record()} if initial else {}),
    }
    write_model(folder, weights, description)


def write_model(folder: Path, weights: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write a state dict and the description that rebuilds its model into `folder`."""
    save_file({name: value.contiguous().cpu() for name, value in weights.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_description(path: str | Path) -> dict[str, Any]:
    """The content of config.json: `model` (a ModelSpec), `train`, `epoch`, `data_fingerprint`.

    `initial_weights` too, a `Provenance.record()`, unless an earlier version wrote it.
    """
    config = _folder(path) / CONFIG
    try:
        description = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(description, dict) or "model" not in description:
            raise ValueError("it describes no model")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{config}: cannot be read as a model's config ({error}). A model is a folder with "
            f"{WEIGHTS} and {CONFIG}, as training writes it."
        ) from None
    return description


def load(path: str | Path) -> UNet:
    """Rebuild a trained model from its folder, or from the weights file in it.

    Returns the model in eval mode on the CPU; `read_spec` describes it. Raises
    CheckpointError if the files are missing, damaged or do not match.
    """
    folder = _folder(path)
    model = read_spec(folder).build()
    try:
        weights = load_file(folder / WEIGHTS)
        model.load_state_dict(weights)
    except Exception as error:  # safetensors raises its own and OSError, torch RuntimeError
        raise CheckpointError(
            f"{folder / WEIGHTS}: these weights cannot be used: {error}"
        ) from None
    return model.eval()


def read_spec(path: str | Path) -> ModelSpec:
    """The ModelSpec of the model in a folder; CheckpointError if there is none."""
    folder = _folder(path)
    try:
        spec: ModelSpec = decode(ModelSpec, read_description(folder)["model"], str(folder / CONFIG))
    except ConfigError as error:
        raise CheckpointError(f"{error} Was it written by another version?") from None
    return spec


def _folder(path: str | Path) -> Path:
    """The model's folder; CheckpointError if its files are links to other places."""
    path = Path(path)
    folder = path.parent if path.is_file() else path
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(
                f"{folder / name}: this link leads to {(folder / name).resolve()}, outside the "
                "model's folder. Put the file itself there."
            )
    return folder


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters of the model, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())
