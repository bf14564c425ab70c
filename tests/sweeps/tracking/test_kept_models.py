"""Whose weights stay: in the storage and in MLflow, through the end of a sweep and its resume."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sweeps.config.loading import load_recipe
from sweeps.promotion.candidates import candidates, full_budget_trials, sweep_to_promote
from sweeps.search.controller import SweepController
from sweeps.state.ledger import FILE, Ledger
from sweeps.state.storage import Storage
from sweeps.tracking.publisher import Publisher
from sweeps.tracking.tracker import open_tracking
from unetexp.errors import CheckpointError, UserError
from unetexp.tracking.locate import checkpoint_of, model_folder

EPOCHS = 2
SCORES = [0.5, 0.7, 0.6, 0.8, 0.4]
WEIGHTS = "best/model.safetensors"


class Driver:
    """One driver of a sweep whose trials have written their files."""

    def __init__(self, place, changes, started=True):
        tracker = open_tracking(f"sqlite:///{place / 'mlflow.db'}")
        self.store, self.folder, self.said = tracker.store, place / "kept", []
        self.recipe = load_recipe("quickstart", {"epochs": EPOCHS, "asha.enabled": False} | changes)
        if started:
            self.folder.mkdir()
            text = json.dumps(self.recipe.tree())  # YAML, too
            tracker.start_sweep("kept", storage=str(self.folder), artifacts={"recipe.yaml": text})
        else:
            tracker.resume_sweep("kept")
        ledger = Ledger(self.folder / FILE)
        past = list(ledger.events)
        storage = Storage(str(self.folder))
        self.publisher = Publisher(tracker, storage, self.recipe, self.said.append)
        self.controller = SweepController(self.recipe, 0, ledger, [self.publisher])
        self.publisher.catch_up(past)

    def train(self, score, epochs=EPOCHS, written=None):
        """A trial whose best epoch is its last; `written` is the epoch of its files."""
        trial = self.controller.propose().id
        self.controller.trial_started(trial)
        for epoch in range(1, epochs + 1):
            metrics = {"epoch": epoch, "val/miou": score - 0.1 / epoch, "train/loss": 1.0}
            write_files(self.folder / "trials" / trial, written or epoch)
            self.controller.epoch_finished(trial, metrics)
        self.controller.trial_ended(trial, "completed" if epochs == EPOCHS else "interrupted")
        return trial

    def close(self, reason="completed"):
        ranking = self.controller.progress.ranking[: self.recipe.budget.kept_models]
        self.publisher({"event": "best", "trials": [trial.id for trial in ranking]})
        self.publisher(self.controller.ledger.append("closed", reason=reason))
        assert self.publisher.close(60)
        self.controller.ledger.close()

    def weights(self):
        return {p.parent.parent.name for p in self.folder.glob(f"trials/*/{WEIGHTS}")}

    def runs(self):
        parent = self.store.sweep_run("kept").info.run_id
        return {run.data.tags["tune.trial_id"]: run for run in self.store.trial_runs(parent)}

    def checkpoints(self):
        """The trials whose weights are in MLflow, by the files and by the tag."""
        found = [
            {t for t, run in self.runs().items() if self._files(run)},
            {t for t, run in self.runs().items() if "checkpoint" in run.data.tags},
        ]
        assert found[0] == found[1]
        return found[0]

    def _files(self, run):
        return self.store.client.list_artifacts(run.info.run_id, "checkpoint")


def write_files(folder, epoch):
    best = folder / "best"
    best.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("{}")
    (best / "model.safetensors").write_text("weights")
    (best / "config.json").write_text("{}")
    figures = {"val/iou/a": 0.5, "val/dice/a": 0.5}
    record = {"epoch": epoch, "metrics": figures, "classes": ["a"], "confusion": [[1]]}
    (best / "metrics.json").write_text(json.dumps(record))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(best / "overlay.png")


@pytest.mark.parametrize(("keep", "kept"), [(2, {"0001", "0003"}), ("all", set("01234"))])
def test_the_best_trials_keep_their_weights_and_the_others_all_else(tmp_path, keep, kept):
    kept = {trial.zfill(4) for trial in kept}
    driver = Driver(tmp_path, {"budget.trials": 5, "budget.keep_models": keep})
    for score in SCORES:
        driver.train(score)
    driver.close()
    assert driver.weights() == kept
    assert driver.checkpoints() == kept
    for trial in range(5):
        folder = driver.folder / "trials" / f"{trial:04d}"
        assert all((folder / "best" / name).is_file() for name in ("config.json", "overlay.png"))
    assert not driver.said


def test_weights_go_while_the_sweep_runs_but_never_those_of_a_trial_that_continues(tmp_path):
    driver = Driver(tmp_path, {"budget.trials": 4, "budget.keep_models": 1})
    poor = driver.train(0.2, epochs=1)  # interrupted
    for score in (0.5, 0.7, 0.6):
        driver.train(score)
    driver.close("interrupted")
    assert driver.weights() == {poor, "0002"}
    assert driver.checkpoints() == {"0002"}


def test_a_resumed_sweep_prunes_what_is_no_longer_among_the_best(tmp_path):
    changes = {"budget.trials": 3, "budget.keep_models": 2}
    driver = Driver(tmp_path, changes)
    for score in SCORES[:3]:
        driver.train(score)
    driver.close()
    assert driver.weights() == driver.checkpoints() == {"0001", "0002"}

    driver = Driver(tmp_path, changes | {"budget.trials": 4}, started=False)
    driver.train(SCORES[3])
    driver.close()
    assert driver.weights() == driver.checkpoints() == {"0001", "0003"}
    assert not driver.said


def test_weights_that_were_removed_are_named_with_the_command_that_trains_them_again(tmp_path):
    changes = {"budget.trials": 2, "budget.keep_models": 1}
    driver = Driver(tmp_path, changes)
    for score in (0.7, 0.5):
        driver.train(score)
    driver.close()
    gone = driver.runs()["0001"].info.run_id
    command = rf"unetexp reproduce {gone} --tracking-uri"

    driver = Driver(tmp_path, changes | {"budget.keep_models": 2}, started=False)
    driver.close()
    assert any(f"reproduce {gone}" in text for text in driver.said)

    source = sweep_to_promote(driver.store, "kept")
    with pytest.raises(UserError, match=command):
        candidates(driver.store, source, full_budget_trials(driver.store, source), gone)
    with pytest.raises(CheckpointError, match=command):
        checkpoint_of(driver.store.client, gone)
    with pytest.raises(CheckpointError, match="keep_models"):
        model_folder(driver.folder / "trials" / "0001")


def test_weights_older_than_the_best_epoch_are_not_passed_off_as_its_own(tmp_path):
    driver = Driver(tmp_path, {"budget.trials": 1})
    driver.train(0.7, written=1)
    driver.close()
    assert "those in MLflow are of epoch 1" in driver.said[-1]


def test_an_artifact_store_that_removes_nothing_does_not_stop_the_sweep(tmp_path, monkeypatch):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refuse(*_):
        raise NotImplementedError("not here")

    changes = {"budget.trials": 1, "budget.keep_models": 1}
    driver = Driver(tmp_path, changes)
    driver.train(0.5)
    driver.close()
    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    driver = Driver(tmp_path, changes | {"budget.trials": 2}, started=False)
    driver.train(0.7)
    driver.close()
    assert "stay in MLflow: not here" in driver.said[-1]
    assert driver.weights() == {"0001"}
