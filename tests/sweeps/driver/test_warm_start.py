"""The trials of another sweep reach the search of a new one."""

from __future__ import annotations

from types import SimpleNamespace

from sweeps.config.loading import load_recipe
from sweeps.driver.sweep import Sweep
from sweeps.driver.warm_starting import WarmStart
from sweeps.state.ledger import Ledger


def test_known_trials_are_in_the_ledger_and_in_the_study(tmp_path):
    recipe = load_recipe("quickstart", {})
    values = dict(recipe.points[0])
    plan = SimpleNamespace(
        control=tmp_path, recipe=recipe, seed=0, placement=SimpleNamespace(max_concurrent=1)
    )
    known = {"values": values, "reason": "completed", "curve": [[1, 0.4], [2, 0.5]]}
    prepared = SimpleNamespace(plan=plan, data=None)
    sweep = Sweep(prepared, tracker=None, lock=None, warm=WarmStart((("known", known),)))
    assert [trial.value for trial in sweep.controller.study.trials if trial.value] == [0.5]
    sweep.ledger.close()
    assert len(list(Ledger(tmp_path / "ledger.jsonl", write=False).of("known"))) == 1
