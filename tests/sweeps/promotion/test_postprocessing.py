"""`promote --postprocess`: what helps on validation goes with the model, and the card says so."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from sweeps.promotion import judging
from sweeps.promotion.registry import MODEL
from sweeps.tracking.store import local_path
from tests.support.promotable import Place, Trial
from tests.support.promoting import aliases, call, copy_of, read_card
from unetexp.metrics.bootstrap import Interval
from unetexp.models.saved_model import read_spec
from unetexp.postprocessing.settings import Postprocessing
from unetexp.tracking.locate import locate
from unetexp.tuning.tune import Step, Tuned

CHAMPION = f"models:/{MODEL}@champion"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("tuned"), {"train": 4, "val": 10, "test": 4})
    place.sweep("good", Trial(0.8, place.model(0)))
    return place


@pytest.fixture
def uri(place, tmp_path):
    return copy_of(place.root / "mlflow.db", tmp_path.name)


def test_what_does_not_help_stays_off_and_the_card_says_so(uri):
    code, said = call(uri, "good", "--postprocess")
    assert code == 0, said
    assert "none: its labels are no better than chance here" in said
    assert "## Postprocessing\n\n**none: its labels are no better" in read_card(uri, "1")
    assert read_spec(locate(CHAMPION, uri)).postprocessing is None


def test_what_helps_is_judged_stored_and_used(uri, monkeypatch):
    settings = Postprocessing(thresholds={"cell": 0.01})
    step = Step("thresholds", "mIoU", 0.5, 0.6, Interval(0.1, 0.05, 0.15), True, "cell 0.01")
    tuned = Tuned(settings, 10, 5, (step,), calibration=(0.1, 0.1))
    monkeypatch.setattr(judging, "tune_model", lambda *_: tuned)
    code, said = call(uri, "good", "--postprocess")
    assert code == 0, said
    assert "trial 0000, postprocessed" in said and "cell from 0.01 on" in said
    card = read_card(uri, "1")
    assert "**cell from 0.01 on**" in card and "+0.1000 (+0.0500 to +0.1500)" in card
    version = MlflowClient(uri, uri).get_model_version_by_alias(MODEL, "champion")
    assert version.tags["postprocessing"] == "cell from 0.01 on"
    model = mlflow.pyfunc.load_model(str(local_path(version.source)))
    assert (model.predict(np.zeros((16, 16, 3), np.uint8)) == 1).all()  # background without it
    assert (locate(CHAMPION, uri) / "postprocessing.json").is_file()


def test_without_the_option_the_card_says_that_nothing_was_measured(uri):
    assert call(uri, "good")[0] == 0
    assert "Not measured (`--postprocess`)" in read_card(uri, "1")


def test_validation_that_was_trained_on_is_refused(uri):
    code, said = call(uri, "good", "--postprocess", "--train-final", "--with-val")
    assert code == 2 and "--with-val trains on it" in said
    assert aliases(uri) == (None, None)
