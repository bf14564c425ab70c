"""A sweep whose ledger was damaged on disk, from the command line."""

from __future__ import annotations

import subprocess

import pytest

from sweeps.state.ledger import Ledger
from tests.support.databases import new_database
from tests.support.sweep_command import FEW, ROOT, Place, refusal, results, run_here

pytestmark = pytest.mark.slow  # the ledger itself: tests/sweeps/state/test_damaged_ledger.py


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished sweep of three trials whose ledger was damaged while the second one ran."""
    made = Place(tmp_path_factory.mktemp("damaged"))
    new_database(made.root / "mlflow.db")
    run_here(made.recipe, *made.flags, *FEW, "--epochs", 2, "--name", "hurt")
    made.undamaged = results(made, "hurt")
    made.ledger = made.storage / "hurt" / "ledger.jsonl"
    lines = made.ledger.read_text().splitlines(keepends=True)
    hit = next(i for i, line in enumerate(lines) if '"epoch": 1' in line and '"0001"' in line)
    lines[hit] = lines[hit].replace('"val/miou": 0.', '"val/miou": 0.9')
    made.ledger.write_text("".join(lines))
    return made


def test_every_command_that_reads_it_says_what_helps(place):
    before = place.ledger.read_bytes()
    for option in ("--resume", "--warm-start"):
        said = refusal(option, "hurt", "--tracking-uri", place.uri, "--gpus", 0)
        assert "its checksum does not match" in said and "1 of 2 trials have ended" in said
        assert said.strip().endswith(f"--resume hurt --truncate-ledger --tracking-uri {place.uri}")
    assert place.ledger.read_bytes() == before


@pytest.mark.parametrize("extra", [[], ["--resume", "hurt", "--dry-run"]])
def test_the_option_goes_with_a_resume(place, extra):
    assert "--resume NAME" in refusal("--truncate-ledger", "--tracking-uri", place.uri, *extra)


def test_the_printed_command_brings_the_sweep_to_its_end(place):
    before = place.ledger.read_bytes()
    command = refusal("--resume", "hurt", "--tracking-uri", place.uri).strip().splitlines()[-1]

    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stdout + done.stderr
    (copy,) = place.ledger.parent.glob("ledger.jsonl.damaged-*")
    assert copy.read_bytes() == before
    assert len(list(Ledger(place.ledger, write=False).of("trial"))) == 3
    assert results(place, "hurt") == place.undamaged
    (aside,) = place.ledger.parent.glob("lost-*")
    assert sorted(folder.name for folder in aside.iterdir()) == ["0001", "0002"]
    assert "not damaged" in refusal(
        "--resume", "hurt", "--truncate-ledger", "--tracking-uri", place.uri
    )
    run_here("--delete", "hurt", "--yes", "--tracking-uri", place.uri)
    assert place.runs("hurt") == ([], [])
