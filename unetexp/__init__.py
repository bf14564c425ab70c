"""One segmentation experiment: data, model, losses, metrics, training, pictures.

`sweeps` runs many of them. The public names are imported when they are first used, so that a
served model, which needs a few of them, does without the libraries of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetexp.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
    UnetexpError,
    UserError,
    WeightsUnavailableError,
)
from unetexp.lazy import lazy_names
from unetexp.version import __version__

if TYPE_CHECKING:
    from unetexp.archive import load, read_spec
    from unetexp.config import TrainConfig
    from unetexp.create import create_segmentation_model
    from unetexp.data import open_dataset
    from unetexp.loop import evaluate, fit
    from unetexp.losses import create_loss
    from unetexp.metrics import SegmentationMetrics
    from unetexp.original import load_original_weights
    from unetexp.state import TrainState
    from unetexp.unet import UNet, freeze_encoder
    from unetexp.weights import input_normalization, resolve_weights

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
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

_HOMES = {
    "SegmentationMetrics": "metrics",
    "TrainConfig": "config",
    "TrainState": "state",
    "UNet": "unet",
    "create_loss": "losses",
    "create_segmentation_model": "create",
    "evaluate": "loop",
    "fit": "loop",
    "freeze_encoder": "unet",
    "input_normalization": "weights",
    "load": "archive",
    "load_original_weights": "original",
    "open_dataset": "data",
    "read_spec": "archive",
    "resolve_weights": "weights",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
