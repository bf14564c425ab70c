"""What a report says about the next sweep, on planted sweeps whose right answer is known."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from sweeps.cli.compare import app
from sweeps.config.budget import Objective
from sweeps.config.goals import Goals
from sweeps.config.loading import load_recipe
from sweeps.config.recipe import Recipe
from sweeps.report.advice.dimensions import Alike, Drop, Widen, advice
from sweeps.report.advice.next_recipe import as_yaml, next_recipe
from sweeps.report.advice.regret import describe_regret, expected_best, regret
from sweeps.report.advice.stopping import describe_loss, stopping_loss
from sweeps.report.effects import effects
from sweeps.report.findings import findings
from sweeps.report.sweep_data import load_sweep_data
from sweeps.tracking.store import open_store
from tests.support.planted_sweeps import write_sweep
from unetexp.component import decode

RECIPE = """
name: made
base: {epochs: 3}
space:
  encoder.freeze: {kind: choice, values: [none, stage1, all]}
  loss.kind: {kind: choice, values: [dice, focal]}
  loss.gamma: {kind: uniform, low: 1.0, high: 3.0, when: {loss.kind: focal}}
  optimizer.lr: {kind: loguniform, low: 1.0e-4, high: 1.0e-2}
  optimizer.weight_decay: {kind: uniform, low: 0.0, high: 0.1}
  batch_size: {kind: int, low: 4, high: 16}
budget: {trials: 36}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('advice')}/mlflow.db")


def drawn(count, score, seed=0, noise=0.01):
    """Random trials whose final score is `score(params)` and noise; two of three are stopped."""
    rng, trials = np.random.default_rng(seed), []
    for number in range(count):
        params = {
            "encoder.freeze": ("none", "stage1", "all")[number % 3],
            "loss.kind": ("focal", "dice")[number // 3 % 2],
            "optimizer.lr": float(10 ** rng.uniform(-4, -2)),
            "optimizer.weight_decay": float(rng.uniform(0, 0.1)),
            "batch_size": int(rng.integers(4, 17)),
        }
        if params["loss.kind"] == "focal":
            params["loss.gamma"] = float(rng.uniform(1, 3))
        final = score(params) + rng.normal(0, noise)
        trials.append({"params": params, "curve": [final - 0.1, final - 0.03, final]})
    ranked = sorted(trials, key=lambda trial: -trial["curve"][-1])
    for place, trial in enumerate(ranked):
        full = place < count // 3
        trial["reason"] = "completed" if full else "asha"
        trial["curve"] = trial["curve"] if full else trial["curve"][:2]
    return trials


_numbers = itertools.count()


def advised(store, trials):
    """The data of a sweep of these trials, and the advice."""
    name = f"sweep-{next(_numbers)}"
    write_sweep(store, name, trials, recipe=RECIPE)
    data = load_sweep_data(store, name)
    return data, advice(data, effects(data.comparable, data.settings), data.space)


def lr(params):
    """From 0 to 1 over the range."""
    return (np.log10(params["optimizer.lr"]) + 4) / 2


def after(data, found) -> Recipe:
    made = next_recipe(decode(Recipe, yaml.safe_load(RECIPE)), data, found)
    assert len(made.changes) == len(found) + 1
    return made


class TestDimensions:
    def test_a_range_whose_best_trials_lie_at_its_end_is_widened_there(self, store):
        data, found = advised(store, drawn(36, lambda p: 0.5 + 0.2 * lr(p)))
        (only,) = found
        assert isinstance(only, Widen)
        assert (only.path, only.side) == ("optimizer.lr", "high")
        made = after(data, found)
        dimension = made.recipe.space["optimizer.lr"]
        assert dimension.low == 1e-4
        assert dimension.high == pytest.approx(0.1)  # half of its two orders of magnitude
        assert made.recipe.points[0]["optimizer.lr"] > 3e-3

    def test_the_lower_end_as_well(self, store):
        data, found = advised(store, drawn(36, lambda p: 0.6 - 0.2 * lr(p)))
        assert [(each.path, each.side) for each in found] == [("optimizer.lr", "low")]
        assert after(data, found).recipe.space["optimizer.lr"].low == pytest.approx(1e-5)

    def test_a_range_whose_best_lies_inside_stays(self, store):
        _, found = advised(store, drawn(36, lambda p: 0.6 - 0.4 * abs(lr(p) - 0.5)))
        assert not found

    def test_a_value_that_no_setting_takes_is_not_proposed(self, store):
        data, found = advised(store, drawn(36, lambda p: 0.6 - p["optimizer.weight_decay"] * 2))
        (only,) = found
        assert (only.path, only.side) == ("optimizer.weight_decay", "low")  # 0: none is below it
        made = after(data, found)
        assert made.recipe.space == decode(Recipe, yaml.safe_load(RECIPE)).space
        assert "no value beyond is allowed" in made.changes[0]

    def test_a_clearly_worse_choice_is_dropped_and_the_last_one_fixed(self, store):
        def score(params):
            frozen = params["encoder.freeze"] == "all"
            return 0.6 - 0.08 * frozen - 0.06 * (params["loss.kind"] == "focal")

        data, found = advised(store, drawn(48, score))
        dropped = {each.path: each.choices for each in found if isinstance(each, Drop)}
        assert dropped == {"encoder.freeze": ("all",), "loss.kind": ("focal",)}
        recipe = after(data, found).recipe
        assert recipe.space["encoder.freeze"].values == ("none", "stage1")
        assert "loss.kind" not in recipe.space
        assert "loss.gamma" not in recipe.space  # only focal has it
        assert recipe.base.loss.kind == "dice"

    def test_noise_changes_nothing(self, store):
        wrong = 0
        for seed in range(6):
            _, found = advised(store, drawn(36, lambda _: 0.6, seed, noise=0.03))
            wrong += bool(found)
        assert wrong <= 1

    def test_what_makes_no_difference_within_half_a_point_may_be_fixed(self, store):
        data, found = advised(store, drawn(48, lambda _: 0.6, noise=0.002))
        alike = {each.path for each in found if isinstance(each, Alike)}
        assert {"encoder.freeze", "loss.kind"} <= alike
        assert after(data, found).recipe.space["loss.kind"].values == ("dice", "focal")

    def test_nothing_is_said_of_several_objectives(self, store):
        data, found = advised(store, drawn(36, lambda p: 0.5 + 0.2 * lr(p)))
        assert found
        both = Goals((Objective(), Objective(metric="latency_ms")))
        several = dataclasses.replace(data, goals=both)
        assert not advice(several, effects(data.comparable, data.settings), data.space)

    def test_few_trials_change_nothing(self, store):
        data, found = advised(store, drawn(9, lambda p: 0.5 + 0.2 * lr(p)))
        assert not found
        kinds = {each.kind for each in findings(data, [], found)}
        assert "next" not in kinds


class TestStopping:
    @staticmethod
    def data(store, ends, stopped):
        """Trials of three epochs with these curves, and stopped ones."""
        trials = [{"params": {}, "curve": c, "reason": "completed"} for c in ends]
        trials += [{"params": {}, "curve": c, "reason": "asha"} for c in stopped]
        name = f"sweep-{next(_numbers)}"
        write_sweep(store, name, trials, recipe=RECIPE)
        return load_sweep_data(store, name)

    def test_hopeless_trials_cost_nothing(self, store):
        ends = [[0.5, 0.6 + i / 100, 0.65 + i / 100] for i in range(6)]
        data = self.data(store, ends, [[0.2], [0.1]])
        found = stopping_loss(data)
        assert (found.stopped, found.ran_on) == (2, 6)
        assert found.probability == found.expected == found.high == 0
        (sentence,) = describe_loss(data)
        assert "none would have become the best" in sentence
        assert "Slow learners" in sentence  # which the trials that ran on do not tell of

    def test_a_close_one_costs_what_the_gains_of_the_others_say(self, store):
        # The error after an epoch halves in three of six trials, and stays in the others.
        ends = [[0.4, 0.5, 0.7]] * 3 + [[0.4, 0.4, 0.4]] * 3
        found = stopping_loss(self.data(store, ends, [[0.5]]))
        assert found.probability == pytest.approx(0.5, abs=0.03)  # 0.5 -> 0.75, above 0.7
        assert found.expected == pytest.approx(0.025, abs=0.003)
        assert found.high == pytest.approx(0.05)

    def test_too_few_that_ran_on_are_said_to_be_too_few(self, store):
        data = self.data(store, [[0.5, 0.6, 0.7]] * 3, [[0.4]])
        assert stopping_loss(data) is None
        assert "cannot be told from 3 trials" in describe_loss(data)[0]
        assert describe_loss(self.data(store, [[0.5, 0.6, 0.7]], [])) == []


class TestRegret:
    def test_the_expected_best_of_a_choice_is_the_mean_over_all_of_them(self):
        scores = np.array([0.3, 0.9, 0.5, 0.7, 0.1])
        every = [max(some) for some in itertools.combinations(scores, 3)]
        assert expected_best(scores, 3) == pytest.approx(np.mean(every))
        assert expected_best(scores, 5) == pytest.approx(0.9)

    def test_it_foretells_what_as_many_trials_again_gain(self, store):
        rng = np.random.default_rng(0)
        gains, foretold = [], []
        for _ in range(400):
            scores = rng.normal(0.6, 0.05, 40)
            foretold.append(scores[:20].max() - expected_best(scores[:20], 10))
            gains.append(scores.max() - scores[:20].max())
        assert np.mean(foretold) == pytest.approx(np.mean(gains), rel=0.35)

    def test_a_sweep_that_has_found_its_best_early_says_so(self, store):
        trials = drawn(20, lambda p: 0.6)
        data, _ = advised(store, trials)
        found = regret(data)
        assert found.trials == 20
        assert found.next_is_best == pytest.approx(1 / 21)
        best = max(range(20), key=lambda i: max(trials[i]["curve"]))
        assert found.last_record == best + 1
        assert "20 further trials like these" in describe_regret(data)[0]
        few, _ = advised(store, drawn(6, lambda p: 0.6))
        assert "8 are needed" in describe_regret(few)[0]


class TestCommand:
    @pytest.fixture
    def compare(self, store):
        def call(*arguments, code=0):
            given = [*map(str, arguments), "--tracking-uri", store.uri]
            result = CliRunner().invoke(app, given)
            assert result.exit_code == code, result.output
            return " ".join(result.output.split())

        return call

    def test_it_writes_a_recipe_that_a_sweep_takes_and_overwrites_none(
        self, store, compare, tmp_path
    ):
        write_sweep(store, "grows", drawn(36, lambda p: 0.5 + 0.2 * lr(p)), recipe=RECIPE)
        path = tmp_path / "next.yaml"
        said = compare("grows", "--next", path)
        assert "widen the range at its upper end" in said
        assert f"{path} --warm-start grows" in said
        recipe = load_recipe(str(path), {})
        assert recipe.space["optimizer.lr"].high == pytest.approx(0.1)
        assert recipe.budget.trials == 36
        assert set(recipe.points[0]) >= {"encoder.freeze", "optimizer.lr", "batch_size"}
        text = path.read_text()
        assert text.startswith("# After the sweep grows (36 trials, 12 of them with all epochs).")
        assert "exists already and is not overwritten" in compare("grows", "--next", path, code=2)
        assert path.read_text() == text

    def test_the_file_is_the_recipe(self, store):
        data, found = advised(store, drawn(36, lambda p: 0.5 + 0.2 * lr(p)))
        made = after(data, found)
        assert decode(Recipe, yaml.safe_load(as_yaml(made, ["words"]))) == made.recipe

    def test_mistakes(self, store, compare, tmp_path):
        write_sweep(store, "first", drawn(3, lambda p: 0.5)[:1], recipe=RECIPE)
        stopped = [{"params": {}, "curve": [0.5], "reason": "asha"}]
        write_sweep(store, "second", stopped, recipe=RECIPE)
        path = tmp_path / "next.yaml"
        assert "Name one" in compare("first", "second", "--next", path, code=2)
        assert "ends in .yaml" in compare("second", "--next", tmp_path / "next.txt", code=2)
        assert "no trial of second has run" in compare("second", "--next", path, code=2)
        assert not path.exists()
