"""Several models saved as one: averaged probabilities, averaged weights."""

from __future__ import annotations

import json

import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Folder, open_dataset
from unetexp.errors import CheckpointError
from unetexp.inference.predictor import Predictor
from unetexp.models.merging import MERGED, averaged_weights, write_ensemble, write_soup
from unetexp.models.saved_model import (
    CONFIG,
    load,
    model_spec,
    parameter_count,
    read_description,
    read_spec,
    save_model,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_folder_dataset(tmp_path_factory.mktemp("data"), size=(32, 40), classes=3)
    return open_dataset(Folder(root=str(root)))


def saved(folder, data, seed, **changes):
    """An untrained model of this seed in a folder."""
    folder.mkdir(parents=True)
    config = config_with(seed=seed, **changes)
    torch.manual_seed(seed)
    save_model(folder, model_spec(config, data).build(), config, data, epoch=seed + 1)
    return folder


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return [saved(place / str(seed), data, seed) for seed in range(3)]


def test_an_ensemble_has_the_mean_probabilities(folders, tmp_path):
    write_ensemble(folders, tmp_path)
    model, spec = load(tmp_path), read_spec(tmp_path)
    assert spec.members == 3
    image = torch.rand(1, 3, 32, 64)
    with torch.inference_mode():
        own = torch.stack([load(folder)(image).softmax(dim=1) for folder in folders])
        torch.testing.assert_close(model(image).softmax(dim=1), own.mean(dim=0))
    assert parameter_count(model) == 3 * parameter_count(load(folders[0]))
    merged = read_description(tmp_path)[MERGED]
    assert merged == {"averaged": "probabilities", "seeds": [0, 1, 2], "epochs": [1, 2, 3]}
    assert read_description(tmp_path)["epoch"] == 3


def test_an_ensemble_predicts_as_any_model(folders, data, tmp_path):
    write_ensemble(folders, tmp_path)
    labels = Predictor(load(tmp_path), read_spec(tmp_path)).labels(data["val"][0].image)
    assert labels.shape == data["val"].shapes[0]


def test_a_soup_has_the_mean_weights(folders, tmp_path):
    soup = averaged_weights(folders)
    states = [load(folder).state_dict() for folder in folders]
    for name, value in soup.state_dict().items():
        if value.is_floating_point():
            mean = sum(state[name].double() for state in states) / 3
            torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-7, msg=name)
    write_soup(soup, folders, tmp_path)
    assert read_spec(tmp_path) == read_spec(folders[0])
    assert read_description(tmp_path)[MERGED]["averaged"] == "weights"
    again = load(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in soup.state_dict().items())


@pytest.mark.parametrize("merge", [write_ensemble, lambda folders, _: averaged_weights(folders)])
def test_models_that_are_built_otherwise_do_not_become_one(folders, data, tmp_path, merge):
    other = saved(tmp_path / "other", data, 7, **{"decoder.upsampling": "nearest"})
    with pytest.raises(CheckpointError, match="built otherwise"):
        merge([folders[0], other], tmp_path)


def test_one_model_is_written_as_before(folders):
    model = json.loads((folders[0] / CONFIG).read_text())["model"]
    assert not {"members", "folds"} & model.keys()
