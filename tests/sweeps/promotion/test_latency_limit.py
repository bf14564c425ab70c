"""`promote --max-latency-ms`: the best trial that holds it, as measured on this machine."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from sweeps.cli.promote import app
from sweeps.config.loading import load_recipe
from sweeps.promotion import latency_limit
from sweeps.promotion.registry import champion
from sweeps.tracking.store import open_store
from tests.support.promotable import Place, Trial

MS = {0: 40.0, 1: 30.0, 2: 20.0}  # by the class that a model always predicts


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("limit"))
    models = [place.model(answer) for answer in MS]
    goals = {"objective": ["val/dice", "latency_ms"]}
    recipe = load_recipe(str(place.root / "small.yaml"), goals, str(place.data_root))
    trials = [
        Trial(0.7, models[1], latency_ms=3.0),
        Trial(0.8, models[0], latency_ms=4.0),
        Trial(0.6, models[2], latency_ms=2.0),
        Trial(0.5, models[2], latency_ms=9.0),
    ]
    place.sweep("goals", *trials, recipe=recipe)
    return place


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """Each model takes as long as MS says; returns those that were timed."""
    found = []

    def fake(model, channels, height, width):
        found.append(int(model.head.bias.argmax()))
        return MS[found[-1]]

    monkeypatch.setattr(latency_limit, "latency_ms", fake)
    return found


@pytest.fixture
def uri(place, tmp_path):
    copy = place.root / f"{tmp_path.name}.db"
    shutil.copyfile(place.root / "mlflow.db", copy)
    return f"sqlite:///{copy}"


def call(uri, *arguments):
    done = CliRunner().invoke(
        app, ["goals", *map(str, arguments), "--gpus", "0", "--tracking-uri", uri]
    )
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_best_that_holds_is_promoted(uri, timed):
    code, said = call(uri, "--max-latency-ms", 35)
    assert code == 0, said
    assert timed == [0, 1]  # the best first, and none after the one that holds
    assert "trial 0000 of sweep goals" in said
    assert "chosen by val/dice (0.7000) among those that take at most 35 ms" in said
    assert "Trial 0001 scored higher" in said
    assert "30.0 ms" in said  # the gate judges what the choice was made by
    assert champion(open_store(uri)) is not None


def test_without_a_limit_the_best_is_promoted_and_the_front_is_named(uri, timed):
    code, said = call(uri, "--dry-run")
    assert code == 0, said
    assert timed == []
    assert "trial 0001 *" in said
    assert "val Dice" in said
    front = "trial 0001 (val/dice 0.8, latency_ms 4); trial 0000 (val/dice 0.7, latency_ms 3)"
    assert f"on its Pareto front: {front}; trial 0002" in said
    assert "trial 0003 (" not in said


def test_where_none_holds_the_fastest_is_named(uri):
    code, said = call(uri, "--max-latency-ms", 5)
    assert code == 3
    assert "none of the 4 trials" in said
    assert "trial 0002, takes 20.0 ms, with val/dice 0.6000" in said
    assert champion(open_store(uri)) is None
    code, said = call(uri, "--max-latency-ms", 5, "--force")
    assert code == 0, said
    assert "trial 0001 of sweep goals" in said
    assert "red" in said


def test_a_second_choice_or_limit_is_a_mistake(uri):
    run = open_store(uri).sweep_run("goals").info.run_id
    done = CliRunner().invoke(app, ["--run", run, "--max-latency-ms", "5", "--tracking-uri", uri])
    assert done.exit_code == 2
    assert "--set promotion.max_latency_ms=5" in done.output
    code, said = call(uri, "--max-latency-ms", 5, "--set", "promotion.max_latency_ms=6")
    assert code == 2
    assert "leave out that --set" in said
