"""`--resume NAME --recipe FILE`: a sweep's space grows from the command line."""

from __future__ import annotations

import yaml

from sweeps.state.ledger import Ledger
from sweeps.state.manifest import read_manifest
from tests.support.databases import new_database
from tests.support.sweep_command import RECIPE, Place, refusal, run_here
from tests.support.trials_here import trials_here

QUICK = [
    *("--gpus", 0, "--max-concurrent", 1, "--cpus-per-trial", 1, "--trials", 2),
    *("--set", "asha.enabled=false", "--set", "batch_size=4", "--skip-preflight"),
]


def wider(place, name, **base):
    """The recipe's file with another freezing level, upsampling no longer searched."""
    tree = yaml.safe_load(RECIPE)
    tree["base"] |= {"epochs": 1, **base}
    tree["space"]["encoder.freeze"]["values"].append("all")
    tree["space"]["decoder.attention"] = {"kind": "choice", "values": ["none", "scse"]}
    path = place.root / name
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_sweep_grows_on_the_way_and_says_so_everywhere(tmp_path):
    place = Place(tmp_path)
    new_database(place.root / "mlflow.db")
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(yaml.safe_dump({**yaml.safe_load(RECIPE), "name": "narrow"}))
    tracked = ("--tracking-uri", place.uri)
    with trials_here():
        run_here(narrow, *place.flags, *QUICK, "--epochs", 1, "--name", "growing")
        wide = wider(place, "wide.yaml")
        resume = ("--resume", "growing", "--recipe", wide, *tracked)
        planned = run_here(*resume, "--trials", 4, "--dry-run")
        assert "decoder.attention: not searched -> one of none, scse" in planned
        assert "encoder.freeze: one of none, stem -> one of none, stem, all" in planned
        assert "2 of 2 earlier trials count as evidence" in planned
        ledger = place.storage / "growing" / "ledger.jsonl"
        assert not list(Ledger(ledger, write=False).of("grown"))  # a dry run writes nothing

        ran = run_here(*resume, "--trials", 3)
        assert "space: 2 of 2 earlier trials count as evidence" in ran
        grown = list(Ledger(ledger, write=False).of("grown"))
        assert [event["evidence"] for event in grown] == [2]
        run_here("--resume", "growing", *tracked, "--trials", 4)  # with the wide space
    events = Ledger(ledger, write=False).events
    assert sum(event["event"] == "grown" for event in events) == 1
    trials = [event for event in events if event["event"] == "trial"]
    assert ["decoder.attention" in event["values"] for event in trials] == [False] * 2 + [True] * 2
    assert read_manifest(ledger.parent).recipe_asked == str(wide)
    (parent,), children = place.runs("growing")
    assert len(children) == 4
    assert "decoder.attention: not searched" in parent.data.tags["sweep.grown"]
    assert "settings.proved" in children[0].data.tags
    artifacts = {file.name for file in place.root.rglob("recipe*.yaml")}
    assert {"recipe.yaml", "recipe-1.yaml"} <= artifacts

    refused = refusal(*(*resume[:3], wider(place, "other.yaml", clip_norm=3.0), *tracked))
    assert "only its budget, its space and its points may change" in refused
    assert "base.clip_norm: 1.0 -> 3.0" in refused
    refused = refusal(*resume, narrow)
    assert "Give one" in refused
    wider(place, "wide.yaml")
    tree = yaml.safe_load(wide.read_text())
    tree["space"]["loss.kind"]["values"].append("dice")
    wide.write_text(yaml.safe_dump(tree))
    refused = refusal("--resume", "growing", *tracked)
    assert f"unless a recipe is named (--resume growing --recipe {wide})" in refused
