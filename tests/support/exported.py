"""Small models with random weights, exported to files."""

from __future__ import annotations

from pathlib import Path

import torch
from typer.testing import CliRunner

from tests.support.promotable import Place
from unetexp.cli.main import app
from unetexp.data import open_dataset
from unetexp.models.saved_model import model_spec, save_model


def random_model(root: Path, **changes) -> Path:
    """The folder of a model of three classes whose answers are all over the place, and its data."""
    place = Place(root)
    config = place.config(**changes)
    data = open_dataset(config.data)
    torch.manual_seed(0)
    model = model_spec(config, data).build().eval()
    folder = root / "model"
    folder.mkdir()
    save_model(folder, model, config, data, epoch=1)
    return folder


def exported(folder: Path, to: str, *options: str) -> Path:
    """The model in `folder` as a file for that runtime, beside it."""
    file = folder.parent / f"{to}{''.join(options)}.{'xml' if to == 'openvino' else to}"
    line = ["export", str(folder), "--to", to, "--out", str(file), "--max-drop", "100", *options]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    return file
