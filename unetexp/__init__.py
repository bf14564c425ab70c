"""One segmentation experiment: data, model, losses, metrics, training, pictures.

`sweeps` runs many of them.
"""

from __future__ import annotations

from unetexp.archive import load, read_spec
from unetexp.config import TrainConfig
from unetexp.create import create_segmentation_model
from unetexp.data import open_dataset
from unetexp.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
    UnetexpError,
    UserError,
    WeightsUnavailableError,
)
from unetexp.loop import evaluate, fit
from unetexp.losses import create_loss
from unetexp.metrics import SegmentationMetrics
from unetexp.original import load_original_weights
from unetexp.state import TrainState
from unetexp.unet import UNet, freeze_encoder
from unetexp.version import __version__
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
