"""From a real sweep to a champion that was trained to the end, all through Ray."""

from __future__ import annotations

import pytest
import torch

from sweeps.promotion.registry import champion
from sweeps.tracking.store import open_store
from tests.support.promoting import call, final_runs, read_card
from tests.support.sweep_command import Place, run_here
from unetexp.inference.predictor import Predictor
from unetexp.models.saved_model import load, read_spec
from unetexp.tracking.locate import locate


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweeps_best_settings_are_trained_to_the_end(tmp_path):
    place = Place(tmp_path)
    small = ["--gpus", 0, "--max-concurrent", 1, "--trials", 2, "--epochs", 2, "--skip-preflight"]
    thaw = ["--set", "encoder.freeze=all", "--set", "encoder.thaw_epoch=2"]
    asha = ["--set", "asha.enabled=false", "--set", "schedule.warmup_epochs=1"]
    run_here(place.recipe, *place.flags, *small, *thaw, *asha, "--name", "small")
    asked = ["small", "--train-final", "--epochs", 6, "--seeds", 2, "--ensemble", "--soup"]
    code, said = call(place.uri, *asked)
    assert code == 0, said
    runs = final_runs(place.uri, "small-final")
    assert {run.data.tags["stop_reason"] for run in runs} == {"completed"}
    assert {run.data.params["encoder.thaw_epoch"] for run in runs} == {"4"}
    assert {run.data.params["schedule.warmup_epochs"] for run in runs} == {"3.0"}
    _, trials = place.runs("small")
    best = max(trials, key=lambda run: run.data.metrics["best/val/miou"])
    for name in ("optimizer.lr", "loss.kind", "decoder.upsampling"):
        assert {run.data.params[name] for run in runs} == {best.data.params[name]}
    store = open_store(place.uri)
    assert champion(store) is not None
    assert (place.storage / "small-final" / "ledger.jsonl").exists()
    card = read_card(place.uri, "1")
    assert "## Final training" in card
    assert "6 epochs instead of 2, 2 new seeds" in card
    folder = locate("models:/unetexp@champion", place.uri)
    image = torch.zeros(3, 40, 48, dtype=torch.uint8)
    labels = Predictor(load(folder), read_spec(folder)).labels(image)
    assert labels.shape == (40, 48)
