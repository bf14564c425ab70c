"""The record of where weights came from: what is in it, and where it is kept."""

from __future__ import annotations

import hashlib

import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from tests.support.encoder_weights import encoder_of, resnet18_state
from unetexp.data import open_dataset
from unetexp.errors import ConfigError
from unetexp.models.saved_model import read_description
from unetexp.models.weights.provenance import Provenance
from unetexp.models.weights.sources import weights_provenance
from unetexp.training.config import decode_config
from unetexp.training.experiment import BEST, Experiment, best_figures


def test_a_file_is_recorded_by_its_hash(tmp_path):
    file = tmp_path / "mine.pth"
    torch.save(resnet18_state(), file)
    found = weights_provenance(encoder_of(file))
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (found.file, found.license) == ("mine.pth", "unknown")
    torch.save({}, file)
    assert weights_provenance(encoder_of(file)).sha256 != found.sha256


def test_random_weights_are_not_called_pretrained():
    found = weights_provenance(encoder_of("none"))
    assert not found.pretrained
    assert "random" in found.describe()
    assert list(found.record()) == ["source"]


def test_auto_has_no_provenance():
    with pytest.raises(ConfigError, match="resolve_weights"):
        weights_provenance(encoder_of("auto"))


def test_a_run_keeps_it(tmp_path):
    write_folder_dataset(tmp_path / "data", {"train": 2, "val": 1}, (32, 32), 2)
    config = decode_config(
        {
            "data": {"kind": "folder", "root": str(tmp_path / "data")},
            "encoder": {"kind": "timm", "weights": "packaged"},
            "decoder": {"kind": "slim"},
            "augment": {"crop_px": 32},
            "batch_size": 2,
            "epochs": 1,
        }
    )
    run = Experiment(config, open_dataset(config.data), tmp_path / "run", torch.device("cpu"))
    assert [report.epoch for report in run.run()] == [1]
    kept = read_description(tmp_path / "run" / BEST)["initial_weights"]
    assert kept == best_figures(tmp_path / "run")["initial_weights"]
    assert Provenance(**kept) == weights_provenance(config.encoder)
    assert kept["license"] == "Apache-2.0"
