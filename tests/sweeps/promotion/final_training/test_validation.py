"""Finished models on validation: the scores of training, also of folds; ensembles against one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sweeps.config.gates import Gates
from sweeps.promotion.final_training.merging import Mixer, kinds_asked, too_heavy, try_merging
from sweeps.promotion.final_training.outcome import ENSEMBLE, FINAL, SOUP, Contender
from sweeps.promotion.final_training.validation import Validated, Validation
from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Folder, open_dataset
from unetexp.training.experiment import BEST, Experiment, best_figures

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[None, 2], ids=["one split", "folds"])
def data(request, tmp_path_factory):
    root = write_folder_dataset(tmp_path_factory.mktemp("data"), {"": 8}, (32, 40), 3)
    folds = {"folds": request.param, "test_fraction": 0.2} if request.param else {}
    return open_dataset(Folder(root=str(root), **folds))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two runs with different seeds."""
    folders = []
    for seed in (1, 2):
        config = config_with(epochs=1, seed=seed, precision="fp32")
        folders.append(tmp_path_factory.mktemp("run") / "run")
        list(Experiment(config, data, folders[-1], CPU).run())
    return folders


@pytest.mark.parametrize("metric", ["val/miou", "val/dice/1"])
def test_a_model_has_the_score_that_training_gave_it(data, trained, metric):
    found = Validation(data, metric, CPU)(trained[0] / BEST)
    assert found.score == pytest.approx(best_figures(trained[0])["metrics"][metric], abs=1e-5)
    validated = sum(map(len, data.folds)) or len(data["val"])
    assert found.matrices.shape == (validated, 3, 3)


def test_an_ensemble_of_a_model_with_itself_is_a_tie(data, trained, tmp_path):
    best = contender(trained[0] / BEST)
    validation = Validation(data, "val/miou", CPU)
    picked, attempts = tried([ENSEMBLE], [best, best], best, data, validation, tmp_path)
    assert picked is best
    assert attempts[0].comparison.difference.value == pytest.approx(0, abs=1e-9)
    assert not list(tmp_path.glob("*"))  # what is not kept is removed


def contender(folder, title="one"):
    return Contender(FINAL, title, "run", folder, 0.5, 1)


def tried(kinds, members, best, data, validation, place, gates=None, mixer=Mixer):
    return try_merging(
        kinds,
        members,
        best,
        title=lambda kind: f"{kind} of all",
        run_id="parent",
        mixer=mixer(place, data, CPU),
        validation=validation,
        gates=gates or Gates(),
    )


class _Linked(Mixer):
    """Makes no new model: that the first one's files stand for it saves seconds."""

    def merged(self, kind, folders):
        return Path(shutil.copytree(folders[0], self.place / kind, copy_function=os.link))


class _Planned:
    """Validation in which the models in folders of these names have so many right of 100 pixels."""

    def __init__(self, data, right):
        self.data, self.right = data, right
        self.compare = Validation(data, "val/miou", CPU).compare

    def __call__(self, folder):
        right = np.array(self.right.get(folder.name, [50, 52, 48, 51]))
        matrices = np.zeros((len(right), 3, 3), np.int64)
        matrices[:, 0, 0] = matrices[:, 1, 1] = right
        matrices[:, 0, 1] = matrices[:, 1, 0] = 100 - right
        return Validated(float(right.mean() / 100), matrices)


@pytest.mark.parametrize(
    ("right", "kept"),
    [
        ({ENSEMBLE: [60, 62, 58, 61]}, [False, True]),
        ({ENSEMBLE: [51, 51, 49, 51]}, [False, False]),
        ({SOUP: [60, 62, 58, 61], ENSEMBLE: [70, 72, 68, 71]}, [True, True]),
        ({SOUP: [70, 72, 68, 71], ENSEMBLE: [60, 62, 58, 61]}, [True, False]),
    ],
)
def test_each_has_to_beat_the_best_until_then(data, trained, tmp_path_factory, right, kept):
    members = [contender(folder / BEST, f"seed {n}") for n, folder in enumerate(trained)]
    kinds = kinds_asked(ensemble=True, soup=True)
    planned = _Planned(data, right)
    place = tmp_path_factory.mktemp("merged")
    picked, attempts = tried(kinds, members, members[0], data, planned, place, mixer=_Linked)
    assert [attempt.kind for attempt in attempts] == [SOUP, ENSEMBLE]
    assert [attempt.kept for attempt in attempts] == kept
    best = ENSEMBLE if kept[1] else SOUP if kept[0] else FINAL
    assert picked.kind == best
    if best != FINAL:
        assert (picked.run_id, picked.title) == ("parent", f"{best} of all")
        assert picked.folder == place / best
    assert {path.name for path in place.iterdir()} == {
        attempt.kind for attempt in attempts if attempt.kept
    }
    if kept[0]:
        assert attempts[1].against == "soup of all"


def test_one_that_a_gate_forbids_is_not_kept(data, trained, tmp_path):
    members = [contender(folder / BEST) for folder in trained]
    planned = _Planned(data, {ENSEMBLE: [90, 92, 88, 91]})
    one_mb = (members[0].folder / "model.safetensors").stat().st_size / 1e6
    gates = Gates(max_size_mb=1.5 * one_mb)
    picked, (attempt,) = tried([ENSEMBLE], members, members[0], data, planned, tmp_path, gates)
    assert picked is members[0]
    assert attempt.pays
    assert "MB are allowed" in attempt.describe("val/miou")


def test_limits_are_those_of_the_model_as_it_is_served(data, trained):
    folder = trained[0] / BEST
    assert too_heavy(folder, Gates(), data, CPU) == ""
    assert too_heavy(folder, Gates(max_latency_ms=1e6, max_size_mb=1e6), data, CPU) == ""
    assert "ms are allowed" in too_heavy(folder, Gates(max_latency_ms=1e-3), data, CPU)


def test_one_model_is_not_averaged(data, trained, tmp_path):
    best = contender(trained[0] / BEST)
    picked, (attempt,) = tried([SOUP], [best], best, data, None, tmp_path)
    assert picked is best
    assert "only one training was completed" in attempt.describe("val/miou")
