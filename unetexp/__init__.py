"""One segmentation experiment: data, model, losses, metrics, training, plots.

`sweeps` runs many of them. The public names are imported when they are first used, so that a
served model, which needs only a few of them, does not import the libraries of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetexp._lazy import lazy_names
from unetexp.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
    UnetexpError,
    UserError,
    WeightsUnavailableError,
)
from unetexp.version import __version__

if TYPE_CHECKING:
    from unetexp.data import open_dataset
    from unetexp.loading import LoadedModel, load
    from unetexp.metrics.segmentation import SegmentationMetrics
    from unetexp.models.factory import create_segmentation_model
    from unetexp.models.saved_model import read_spec
    from unetexp.models.unet import UNet, freeze_encoder
    from unetexp.models.weights.original import load_original_weights
    from unetexp.models.weights.resolution import input_normalization, resolve_weights
    from unetexp.training.config import TrainConfig, decode_config
    from unetexp.training.loop import fit
    from unetexp.training.losses import create_loss
    from unetexp.training.state import TrainState
    from unetexp.training.validation import evaluate

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "LoadedModel",
    "NonFiniteLossError",
    "SegmentationMetrics",
    "TrainConfig",
    "TrainState",
    "UNet",
    "UnetexpError",
    "UserError",
    "WeightsUnavailableError",
    "__version__",
    "create_loss",
    "create_segmentation_model",
    "decode_config",
    "evaluate",
    "fit",
    "freeze_encoder",
    "input_normalization",
    "load",
    "load_original_weights",
    "open_dataset",
    "read_spec",
    "resolve_weights",
]

_MODULES = {
    "LoadedModel": "loading",
    "SegmentationMetrics": "metrics.segmentation",
    "TrainConfig": "training.config",
    "TrainState": "training.state",
    "UNet": "models.unet",
    "create_loss": "training.losses",
    "create_segmentation_model": "models.factory",
    "decode_config": "training.config",
    "evaluate": "training.validation",
    "fit": "training.loop",
    "freeze_encoder": "models.unet",
    "input_normalization": "models.weights.resolution",
    "load": "loading",
    "load_original_weights": "models.weights.original",
    "open_dataset": "data",
    "read_spec": "models.saved_model",
    "resolve_weights": "models.weights.resolution",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
