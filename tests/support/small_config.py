"""The configuration of the smallest useful experiment."""

from __future__ import annotations

from unetexp.training.config import TrainConfig, decode_config

SMALL = {
    "encoder": {"name": "resnet18", "weights": "none"},
    "augment": {"crop_px": 32},
    "epochs": 4,
    "batch_size": 2,
    "data": {"kind": "mni152"},  # not opened: the tests bring their own
}


def config_with(**changes) -> TrainConfig:
    return decode_config(SMALL, changes)
