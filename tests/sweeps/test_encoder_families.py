"""A sweep over all encoder families, and everything that is done with a trial afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from mlflow import MlflowClient, pyfunc
from PIL import Image
from typer.testing import CliRunner

from sweeps.cli.promote import app as promote
from tests.support.sweep_command import Place, results, run_here, start, wait_for
from unetexp.cli.main import app as unetexp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FAMILIES = {
    "resnet": "resnet18",
    "timm": "tf_efficientnet_lite0",
    "vit": "vit_tiny_patch16_224",
}
RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  batch_size: 2
  epochs: 2
space:
  encoder.kind: {kind: choice, values: [resnet, timm, vit]}
  encoder.name: {kind: choice, values: [vit_tiny_patch16_224], when: {encoder.kind: vit}}
  encoder.freeze: {kind: choice, values: [none, stage1]}
budget: {trials: 3}
asha: {enabled: false}
points:
  - {encoder.kind: resnet, encoder.freeze: stage1}
  - {encoder.kind: timm, encoder.freeze: none}
  - {encoder.kind: vit, encoder.freeze: none, encoder.name: vit_tiny_patch16_224}
"""
FLAGS = ["--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--skip-preflight"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished sweep `whole`, and the same one, `cut`, killed in its second trial and resumed."""
    made = Place(tmp_path_factory.mktemp("families"))
    made.recipe.write_text(RECIPE)
    flags = [made.recipe, *made.flags, *FLAGS]
    run_here(*flags, "--name", "whole")
    process = start(*flags, "--name", "cut")
    wait_for(process, "trial 0001 epoch 1/2")
    process.kill()
    process.wait()
    process.stdout.close()
    run_here("--resume", "cut", *made.flags[2:], "--gpus", 0)
    return made


def run_of(place, kind):
    _, runs = place.runs("whole")
    return next(run for run in runs if run.data.params["encoder.kind"] == kind)


def call(app, *arguments):
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_sweep_that_was_killed_ends_as_the_undisturbed_one(place):
    whole, cut = results(place, "whole"), results(place, "cut")
    assert [params["encoder.kind"] for params, _, _ in whole] == list(FAMILIES)
    assert cut == whole


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_trial_is_reproduced(place, kind, tmp_path):
    said = call(
        unetexp,
        *("reproduce", run_of(place, kind).info.run_id),
        *("--tracking-uri", place.uri, "--out", tmp_path / "again"),
    )
    assert "the same, to the bit" in said


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_trial_is_promoted_and_predicts_and_is_served(place, kind, tmp_path):
    run = run_of(place, kind)
    call(
        promote,
        *("--run", run.info.run_id, "--gpus", 0, "--tracking-uri", place.uri, "--force"),
    )
    client = MlflowClient(place.uri, place.uri)
    champion = client.get_model_version_by_alias("unetexp", "champion")
    assert champion.run_id == run.info.run_id

    image = np.random.default_rng(0).integers(0, 256, (45, 37, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "odd.png")
    call(
        unetexp,
        *("predict", "models:/unetexp@champion", tmp_path / "odd.png"),
        *("--out", tmp_path / "predicted", "--tracking-uri", place.uri, "--device", "cpu"),
    )
    [written] = [p for p in (tmp_path / "predicted").rglob("*.png") if "overlay" not in p.name]
    predicted = np.asarray(Image.open(written))
    assert predicted.shape == (45, 37)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.setenv("MLFLOW_TRACKING_URI", place.uri)
        served = pyfunc.load_model(f"{champion.source}").predict(image[np.newaxis])
    assert np.array_equal(np.asarray(served).reshape(45, 37), predicted)
