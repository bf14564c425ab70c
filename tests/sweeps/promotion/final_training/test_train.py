"""Final trainings of a hand-made sweep's trial, for real but without Ray: from options to card."""

from __future__ import annotations

import re

import pytest
from mlflow import MlflowClient

import unetexp
from sweeps.promotion import retraining
from sweeps.promotion.evaluation import uses_of_test_split
from sweeps.promotion.final_training.outcome import Attempt
from sweeps.promotion.registry import MODEL, champion
from sweeps.tracking.store import FINAL_OF, open_store
from tests.support.promotable import Place, Trial
from tests.support.promoting import aliases, call, copy_of, final_runs, read_card, trial_run
from tests.support.trials_here import run_trials_here, trials_here
from unetexp.models.saved_model import load, read_description, read_spec
from unetexp.tracking.locate import locate

POOR, PROUD = "poor", "proud"  # sweeps whose trial has a low and a high score on validation


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("finals"))
    poor = made.model(2)
    made.sweep(POOR, Trial(0.01, poor), Trial(0.005, poor))
    made.sweep(PROUD, Trial(0.99, made.model(0)))
    return made


@pytest.fixture
def uri(place, tmp_path):
    """A copy of the store, to be changed by one test."""
    return copy_of(place.root / "mlflow.db", tmp_path.name)


def train_final(uri, tmp_path, *arguments, sweep=POOR):
    with trials_here():
        return call(uri, sweep, "--train-final", *arguments, "--storage", tmp_path / "runs")


class TestOneSeed:
    @pytest.fixture(scope="class")
    def done(self, place, tmp_path_factory):
        uri = copy_of(place.root / "mlflow.db", "one-seed")
        code, said = train_final(uri, tmp_path_factory.mktemp("one"))
        assert code == 0, said
        return uri, said

    def test_it_trains_five_times_as_long_with_a_new_seed(self, done):
        uri, _ = done
        (run,) = final_runs(uri, "poor-final")
        assert (run.data.params["epochs"], run.data.params["seed"]) == ("5", "1")
        assert run.data.params["decoder.upsampling"] == "bilinear"
        assert run.data.tags["stop_reason"] == "completed"
        client = MlflowClient(tracking_uri=uri)
        points = client.get_metric_history(run.info.run_id, "val/miou")
        assert sorted(point.step for point in points) == [1, 2, 3, 4, 5]
        parent = open_store(uri).sweep_run("poor-final")
        assert parent.data.tags[FINAL_OF] == POOR
        assert "Picked by validation" in parent.data.tags["final.result"]

    def test_the_better_on_validation_is_promoted(self, done):
        uri, said = done
        (run,) = final_runs(uri, "poor-final")
        assert champion(open_store(uri)).run_id == run.info.run_id
        assert "unetexp version 1, final training of trial 0000 (seed 1) of sweep poor" in said
        assert "against trial 0000: mIoU" in said
        after = open_store(uri).client.get_run(run.info.run_id).data
        assert 0 <= after.metrics["test/miou"] <= 1
        assert "test/miou" not in trial_run(uri, POOR, "0000").data.metrics

    def test_its_card_tells_it_from_the_trial(self, done):
        uri, _ = done
        card = read_card(uri, "1")
        for part in (
            "# unetexp: final training of trial 0000 (seed 1) of sweep poor",
            "Its settings are those of a trial that was chosen by the sweep's objective",
            "## Final training",
            "(sweep poor-final): 5 epochs instead of 1, 1 new seed",
            "- trial 0000 in the sweep: 0.0100",
            "Picked by validation: final training of trial 0000 (seed 1)",
            "so its score there is too optimistic",
            "| final training | run `",
            "Seed 1.",
        ):
            assert part in card, part
        (run,) = final_runs(uri, "poor-final")
        epoch = read_description(locate(run.info.run_id, uri))["epoch"]
        assert f"Epoch {epoch} of 5." in card

    def test_the_same_again_trains_nothing(self, done, tmp_path, monkeypatch):
        uri, _ = done
        monkeypatch.setattr(retraining, "train_again", None)
        code, said = train_final(uri, tmp_path)
        assert code == 0, said
        assert "sweep poor-final has trained this already" in said
        assert "is the current champion" not in said  # that is said of the sweep's trial

    def test_a_final_training_is_not_the_newest_sweep(self, done):
        uri, _ = done
        assert "Sweep proud" in call(uri, "--dry-run")[1]
        assert "is the final training of a trial of poor" in call(uri, "poor-final", "--dry-run")[1]


def test_the_sweeps_own_model_stays_where_it_is_better(uri, tmp_path):
    code, said = train_final(uri, tmp_path, "--epochs", 1, sweep=PROUD)
    assert code == 0, said
    assert champion(open_store(uri)).run_id == trial_run(uri, PROUD, "0000").info.run_id
    assert "The final training is no better on validation" in said
    card = read_card(uri, "1")
    assert "# unetexp: trial 0000 of sweep proud" in card
    assert "## Final training" in card
    assert "Epoch 1 of 1. Seed 0." in card
    assert "| final training | run" not in card


def test_a_better_champion_stays(uri, tmp_path):
    assert call(uri, PROUD)[0] == 0  # predicts the background: the best of the three constants
    hard = ["--epochs", 1, "--set", "promotion.max_size_mb=0.01"]
    code, said = train_final(uri, tmp_path, *hard)
    assert code == 3
    assert "gate red: size" in said
    assert aliases(uri) == ("1", None)
    assert len(MlflowClient(uri, uri).search_model_versions(f"name = '{MODEL}'")) == 1


@pytest.mark.slow
class TestSeveralSeeds:
    @pytest.fixture(scope="class")
    def done(self, place, tmp_path_factory):
        uri = copy_of(place.root / "mlflow.db", "several")
        both = ["--epochs", 2, "--seeds", 2, "--ensemble", "--soup"]
        code, said = train_final(uri, tmp_path_factory.mktemp("several"), *both)
        assert code == 0, said
        return uri, said

    def test_each_seed_is_a_run_and_what_was_tried_is_said(self, done):
        uri, said = done
        assert sorted(run.data.params["seed"] for run in final_runs(uri, "poor-final")) == [
            "1",
            "2",
        ]
        said = " ".join(said.split())
        for kind, averaged in (("soup", "weights"), ("ensemble", "probabilities")):
            assert re.search(rf"{kind} of 2 seeds \(averaged {averaged}\): (kept|tried)", said)

    def test_the_card_says_what_was_tried(self, done):
        uri, _ = done
        card = read_card(uri, "1")
        assert "- seed 1: 0." in card
        assert "- seed 2: 0." in card
        assert "- soup of 2 seeds (averaged weights): " in card
        assert "- ensemble of 2 seeds (averaged probabilities): " in card


@pytest.mark.slow
def test_an_ensemble_that_pays_is_served(uri, tmp_path, monkeypatch):
    """What pays is decided by the bootstrap; here the first thing that is tried does."""
    always_pays(monkeypatch)
    code, said = train_final(uri, tmp_path, "--epochs", 1, "--seeds", 2, "--ensemble")
    assert code == 0, said
    assert "version 1, ensemble of 2 final trainings of trial 0000 of sweep poor" in said
    store = open_store(uri)
    parent = store.sweep_run("poor-final").info.run_id
    assert champion(store).run_id == parent
    assert "test/miou" in store.client.get_run(parent).data.metrics
    folder = locate("models:/unetexp@champion", uri)
    assert read_spec(folder).members == 2
    assert len(load(folder).members) == 2
    card = read_card(uri, "1")
    assert "2 models that predict together, each a U-Net" in card
    assert "Averaged probabilities of 2 models: seeds 1, 2, epochs 1, 1 of 1." in card
    assert "ensemble of 2 seeds (averaged probabilities): kept" in card


@pytest.mark.slow
def test_its_export_is_served_and_judged(uri, tmp_path, monkeypatch):
    always_pays(monkeypatch)
    asked = ["--epochs", 1, "--seeds", 2, "--ensemble", "--export", "onnx-fp32"]
    limit = ["--set", "promotion.max_latency_ms=1e-3", "--force"]  # met by no model
    code, said = train_final(uri, tmp_path, *asked, "--flavor", "onnx-fp32", *limit)
    assert code == 0, said
    assert "ensemble of 2 seeds (averaged probabilities): tried and not kept" in read_card(uri, "1")
    assert "0.001 ms are allowed" in read_card(uri, "1")
    code, said = train_final(uri, tmp_path, *asked, "--flavor", "onnx-fp32", "--force")
    assert code == 0, said
    assert "sweep poor-final has trained this already" in said
    assert "version 2, ensemble of 2 final trainings" in said
    assert read_spec(locate("models:/unetexp@champion", uri)).members == 2
    served = unetexp.load("models:/unetexp@champion", tracking_uri=uri)
    assert served.runtime == "onnx"


@pytest.mark.slow
def test_with_val_trains_once_more_and_has_no_score(uri, tmp_path, monkeypatch):
    always_pays(monkeypatch)
    asked = ["--epochs", 2, "--seeds", 2, "--soup", "--with-val"]
    code, said = train_final(uri, tmp_path, *asked)
    assert code == 0, said
    runs = final_runs(uri, "poor-final-with-val")
    assert {run.data.params["data.train_with_val"] for run in runs} == {"True"}
    assert sorted(run.data.params["seed"] for run in runs) == ["1", "2"]
    card = read_card(uri, "1")
    assert "nothing was left to pick or to compare it by before the test split" in card
    assert "# unetexp: soup of 2 final trainings of trial 0000, trained on train and val" in card
    assert "so its score there is too optimistic" not in card
    folder = locate("models:/unetexp@champion", uri)
    assert read_spec(folder).members is None
    for run in runs:  # the last epoch is the one that was kept
        own = read_description(locate(run.info.run_id, uri))
        assert own["epoch"] == own["train"]["epochs"] == run.data.metrics["best/epoch"]


def always_pays(monkeypatch):
    monkeypatch.setattr(Attempt, "pays", property(lambda _: True))


@pytest.mark.slow
def test_an_interrupted_one_goes_on_where_it_was(uri, tmp_path, monkeypatch, place):
    """A signal after the first of two runs: the second command trains the other one only."""
    run_trials, trained = interrupted_after_one()
    with trials_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweeps.driver.sweep.run_trials", run_trials)
        asked = [POOR, "--train-final", "--epochs", 1, "--seeds", 2, "--dry-run"]
        code, said = call(uri, *asked, "--storage", tmp_path / "runs")
    assert code == 130
    assert "sweep poor-final keeps what it has; to continue:" in said
    again = " ".join(said.split())
    assert "promote.py poor --train-final --epochs 1 --seeds 2 --gpus 0" in again
    assert "--dry-run" in again.partition("to continue:")[2]
    assert aliases(uri) == (None, None)
    assert uses_of_test_split(open_store(uri), place.data.fingerprint) == 0
    code, said = train_final(uri, tmp_path, "--epochs", 1, "--seeds", 2)
    assert code == 0, said
    assert "sweep poor-final was interrupted and goes on where it was" in said
    runs = final_runs(uri, "poor-final")
    assert {run.data.tags["stop_reason"] for run in runs} == {"completed"}
    assert len(runs) == 2
    assert trained == ["0000"]


def interrupted_after_one():
    """A stand-in for Ray that is interrupted once a trial has ended, and the ids it trained."""
    trained = []

    def run_trials(controller, context, placement, shared=None):
        propose = controller.propose

        def once():
            if trained:
                raise KeyboardInterrupt
            trial = propose()
            trained.append(trial.id)
            return trial

        controller.propose = once
        run_trials_here(controller, context, placement)

    return run_trials, trained
