"""Soups: averaged weights whose batch-norm statistics are computed from training images."""

from __future__ import annotations

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Folder, open_dataset
from unetexp.models.merging import averaged_weights
from unetexp.models.saved_model import load
from unetexp.training.experiment import BEST, Experiment
from unetexp.training.soup import soup

CPU = torch.device("cpu")


def trained(folder, data, **changes):
    config = config_with(epochs=1, precision="fp32", batch_norm_images=32, **changes)
    experiment = Experiment(config, data, folder, CPU)
    list(experiment.run())
    return folder / BEST, config


@pytest.fixture(scope="module", params=[None, 2], ids=["one split", "folds"])
def data(request, tmp_path_factory):
    root = write_folder_dataset(tmp_path_factory.mktemp("data"), {"": 8}, (32, 40), 3)
    folds = {"folds": request.param, "test_fraction": 0.2} if request.param else {}
    return open_dataset(Folder(root=str(root), **folds))


def norms(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}


def test_of_a_model_with_itself_it_is_the_model(data, tmp_path, one_thread):
    """Training computed the statistics from the same images."""
    folder, config = trained(tmp_path / "run", data)
    found = soup([folder, folder], config, data, CPU)
    assert not found.training
    for name, value in load(folder).state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_of_two_seeds_its_statistics_are_its_own(data, tmp_path):
    pairs = [trained(tmp_path / str(seed), data, seed=seed) for seed in (1, 2)]
    folders = [folder for folder, _ in pairs]
    found, mean = soup(folders, pairs[0][1], data, CPU), averaged_weights(folders)
    own = dict(mean.named_parameters())
    for name, value in found.named_parameters():
        assert torch.equal(value, own[name])
    changed = [
        not torch.allclose(norm.running_var, norms(mean)[name].running_var)
        for name, norm in norms(found).items()
    ]
    assert all(changed)


def test_a_frozen_encoder_keeps_its_statistics(data, tmp_path):
    folder, config = trained(tmp_path / "run", data, **{"encoder.freeze": "all"})
    found = norms(soup([folder, folder], config, data, CPU))
    for name, norm in norms(load(folder)).items():
        if "encoder" in name:
            assert torch.equal(norm.running_mean, found[name].running_mean)
