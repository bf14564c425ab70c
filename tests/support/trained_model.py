"""A model that has learned something in seconds, and the data that it learned from."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support.data_folders import write_folder_dataset
from unetexp.data import Dataset, Folder, open_dataset
from unetexp.models.saved_model import save_model
from unetexp.training.config import decode_config
from unetexp.training.loop import fit
from unetexp.training.state import TrainState


def three_classes(root: Path) -> Dataset:
    """Images of 64 x 80 px with three classes, written into `root`."""
    return open_dataset(
        Folder(
            root=str(write_folder_dataset(root, {"train": 16, "val": 3}, size=(64, 80), classes=3))
        )
    )


def train_briefly(folder: Path, data: Dataset, **changes) -> Path:
    """Train a ResNet-18 for six epochs on `data`; the model's folder, which is `folder`."""
    tree = {
        "encoder": {"name": "resnet18", "weights": "none"},
        "augment": {"crop_px": 64},
        "epochs": 6,
        "batch_size": 4,
        "precision": "fp32",
        "data": {"kind": "mni152"},
    }
    config = decode_config({**tree, **changes}, {})
    state = TrainState(config, data, torch.device("cpu"))
    list(fit(config, data, state))
    save_model(folder, state.evaluated_model, config, data, state.epoch)
    return folder
