"""Where a trial's weights came from, from its training to the runs' tags and the model card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from mlflow.artifacts import download_artifacts
from typer.testing import CliRunner

from sweeps.cli.promote import app as promote
from tests.support.databases import new_database
from tests.support.encoder_weights import resnet18_state
from tests.support.sweep_command import Place, run_here
from tests.support.trials_here import trials_here

TINY = [
    *("--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--trials", 1, "--epochs", 1),
    *("--set", "batch_size=4", "--skip-preflight"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_licence_and_hash_of_a_weight_file_are_in_the_runs_and_in_the_model_card(tmp_path):
    place, file = Place(tmp_path), tmp_path / "mine.pth"
    new_database(tmp_path / "mlflow.db")
    torch.save(resnet18_state(), file)

    with trials_here():
        weights = ["--set", f"encoder.weights={file}"]
        run_here(place.recipe, *place.flags, *TINY, *weights, "--name", "known")

    expected = {
        "weights.file": "mine.pth",
        "weights.sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "weights.license": "unknown",
    }
    (parent,), (child,) = place.runs("known")
    for run in (parent, child):
        assert {name: run.data.tags.get(name) for name in expected} == expected
        assert str(file) in run.data.tags["weights.source"]
    done = CliRunner().invoke(promote, ["known", "--gpus", "0", "--tracking-uri", place.uri])
    assert done.exit_code == 0, done.output
    version = place.client.get_model_version_by_alias("unetexp", "champion")
    card = download_artifacts(f"{version.source}/card.md", tracking_uri=place.uri)
    [line] = [x for x in Path(card).read_text().splitlines() if x.startswith("| initial weights")]
    assert f"sha256 {expected['weights.sha256']}, licence unknown" in line
