"""Trials as a table, from hand-made MLflow stores; a condition on them; their order."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from sweeps.leaderboard.filtering import filter_trials
from sweeps.leaderboard.ranking import rank_trials
from sweeps.leaderboard.trials import histories, parameter_columns, per_class_columns, trials_frame
from sweeps.tracking.store import open_store
from tests.support.tracking_stores import write_sweep
from unetexp.errors import ConfigError, UserError

FOCAL = {"loss.kind": "focal", "loss.gamma": 2.0, "optimizer.lr": 1e-4, "augment.hflip": True}
DICE = {"loss.kind": "dice_ce", "optimizer.lr": 1e-3, "augment.hflip": False}
THAWED = {"encoder.thaw_epoch": 3}
KEPT = {"encoder.thaw_epoch": None}
TRIALS = [
    (DICE | THAWED, [0.1, 0.2, 0.3, 0.4], "completed"),
    (FOCAL | KEPT, [0.1, 0.5, 0.4, 0.45], "completed"),  # best in epoch 2
    (FOCAL | KEPT | {"loss.gamma": 3}, [0.6], "asha"),
    (FOCAL | KEPT | {"optimizer.lr": 5e-3}, [], "nan"),
    (DICE | KEPT, [0.2], None),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('leaderboard')}/mlflow.db")
    write_sweep(store, "older", [({"loss.kind": "tversky"}, [0.1, 0.2, 0.3, 0.55], "completed")])
    write_sweep(store, "newer", TRIALS)
    return store


@pytest.fixture(scope="module")
def frame(store):
    return trials_frame(store, ["newer"])


class TestFrame:
    def test_full_budget_first_then_best_first_then_those_without_a_score(self, frame):
        assert list(frame["trial"]) == ["0001", "0000", "0002", "0004", "0003"]
        assert list(frame["full_budget"]) == [True, True, False, False, False]
        assert list(frame["stop_reason"]) == ["completed", "completed", "asha", "running", "nan"]
        assert list(frame["epochs"]) == [4, 4, 1, 1, 0]
        assert set(frame["budget"]) == {4}

    def test_figures_are_those_of_the_best_epoch(self, frame):
        best = frame.iloc[0]
        assert (best["best/val/miou"], best["best/epoch"]) == (0.5, 2)
        assert best["val/miou"] == 0.5
        assert best["val/loss"] == 0.5
        assert best["val/iou/back ground"] == pytest.approx(0.6)
        assert best["val/iou/cell"] == pytest.approx(0.4)
        assert best["cost/device_s"] == 40
        assert best["model/parameters"] == 14_000_000
        assert best["time/latency_ms"] == 12.5

    def test_a_trial_without_an_epoch_has_no_figures(self, frame):
        failed = frame[frame["stop_reason"] == "nan"].iloc[0]
        assert math.isnan(failed["best/val/miou"])
        assert math.isnan(failed["val/iou/cell"])

    def test_parameters_have_the_types_they_had(self, frame):
        first, second = frame.iloc[0], frame.iloc[1]
        assert first["augment.hflip"] == True  # noqa: E712 (numpy's)
        assert first["loss.gamma"] == 2.0
        assert pd.isna(second["loss.gamma"])
        assert pd.isna(first["encoder.thaw_epoch"])
        assert second["encoder.thaw_epoch"] == 3
        assert frame["optimizer.lr"].dtype == "float64"
        assert frame["loss.kind"].tolist() == ["focal", "dice_ce", "focal", "dice_ce", "focal"]

    def test_columns_by_kind(self, frame):
        names = "augment.hflip encoder.thaw_epoch loss.gamma loss.kind optimizer.lr seed"
        assert parameter_columns(frame) == names.split()
        assert per_class_columns(frame) == ["val/iou/back ground", "val/iou/cell"]

    def test_no_name_is_the_newest_and_several_come_together(self, store, frame):
        assert trials_frame(store, [])["run_id"].tolist() == frame["run_id"].tolist()
        both = trials_frame(store, ["newer", "older", "newer"])
        assert both["sweep"].value_counts().to_dict() == {"newer": 5, "older": 1}
        assert both.iloc[0]["sweep"] == "older"
        assert pd.isna(both.iloc[0]["optimizer.lr"])

    def test_an_unknown_sweep_is_told_with_the_nearest_and_the_list(self, store):
        with pytest.raises(UserError, match=r"'newr'.*Did you mean 'newer'.*newer, older"):
            trials_frame(store, ["newr"])

    def test_a_sweep_without_trials_is_an_empty_frame(self, tmp_path):
        store = open_store(f"sqlite:///{tmp_path}/mlflow.db")
        with pytest.raises(UserError, match="no sweeps yet"):
            trials_frame(store, [])
        write_sweep(store, "empty", [])
        frame = trials_frame(store, [])
        assert frame.empty
        assert {"sweep", "best/val/miou", "cost/device_s"} <= set(frame)
        assert rank_trials(frame, sort=None, where=None, top=None).rows.empty

    def test_histories_of_all_runs_at_once(self, store, frame):
        runs = dict(zip(frame["trial"], frame["run_id"], strict=True))
        found = histories(store, list(runs.values()))
        assert found[runs["0001"]] == [(1, 0.1), (2, 0.5), (3, 0.4), (4, 0.45)]
        assert found[runs["0002"]] == [(1, 0.6)]
        assert found[runs["0003"]] == []


CONDITIONS = {
    "loss.kind == 'focal'": "123",
    "loss.kind == 'focal' and optimizer.lr < 1e-3": "12",
    'loss.kind == "dice_ce" or not full_budget': "0234",
    "best/val/miou > 0.45": "12",
    "`best/val/miou` > 0.45 and full_budget": "1",
    "augment.hflip": "123",
    "augment.hflip == False": "04",
    "loss.gamma == None": "04",
    "loss.gamma != 2": "024",
    "encoder.thaw_epoch >= 3": "0",
    "loss.kind in ['dice_ce', 'x']": "04",
    "loss.kind not in ['dice_ce']": "123",
    "1e-4 < optimizer.lr <= 1e-3": "04",
    "val/iou/back ground - val/iou/cell > 0.1": "0124",
    "epochs/budget == 1": "01",
    "-optimizer.lr > -(2e-4 + 1e-4)": "12",
    "trial == '0003'": "3",
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions(frame, condition):
    found = "".join(sorted(trial[-1] for trial in filter_trials(frame, condition)["trial"]))
    assert found == CONDITIONS[condition]


REFUSED = {
    "loss.knd == 'focal'": "no column 'loss.knd'. Did you mean 'loss.kind'",
    "loss.kind == focal": "Text goes in quotes",
    "`loss.knd` == 'focal'": "Did you mean 'loss.kind'",
    "loss.kind = 'focal'": "Equality is written ==",
    "@loss > 1": "cannot be parsed",
    "": "cannot be parsed",
    "(" * 500 + "epochs" + ")" * 500: "cannot be parsed",
    "__import__('os').system('true')": "is not allowed",
    "loss.kind.upper() == 'FOCAL'": "'loss.kind.upper()' is not allowed",
    "epochs.__class__ == 1": "no column 'epochs.__class__'",
    "[x for x in 'a'] == 1": "is not allowed",
    "(lambda: 1)() == epochs": "is not allowed",
    "epochs > 9**9**9": "is not allowed",
    "epochs > 1 & full_budget": "is not allowed",
    "f'{epochs}' == '1'": "is not allowed",
    "loss.kind == 3": "loss.kind holds text, and 3 is a number",
    "optimizer.lr > 'a'": "optimizer.lr holds numbers, and 'a' is a text",
    "'a' * 99999999999 == loss.kind": "arithmetic takes numbers",
    "epochs > 1 / 0": "division by zero",
    "loss.kind": "a comparison is missing",
    "1 < 2": "a comparison is missing",
    "epochs in 3": "'in' takes a column and a [list]",
}


@pytest.mark.parametrize("condition", REFUSED)
def test_conditions_that_are_refused(frame, condition):
    with pytest.raises(ConfigError) as refusal:
        filter_trials(frame, condition)
    assert REFUSED[condition] in str(refusal.value)
    assert "--where" in str(refusal.value)


class TestRank:
    def test_parameters_that_differ_a_missing_one_counts(self, frame):
        board = rank_trials(frame, sort=None, where="full_budget", top=None)
        names = ["augment.hflip", "loss.kind", "optimizer.lr", "encoder.thaw_epoch", "loss.gamma"]
        assert list(board.settings) == names
        assert "seed" not in board.rows
        same = rank_trials(
            frame, sort=None, where="loss.kind == 'focal' and optimizer.lr < 1e-3", top=None
        )
        assert same.settings == ("loss.gamma",)

    def test_one_trial_alone_shows_what_varied_in_its_sweep(self, frame):
        assert "loss.kind" in rank_trials(frame, sort=None, where=None, top=1).settings

    def test_a_partial_budget_is_never_above_without_a_word(self, frame):
        by_default = rank_trials(frame, sort=None, where=None, top=3)
        assert list(by_default.rows["full_budget"]) == [True, True, False]
        assert "ranked after" in by_default.notes[0]
        mixed = rank_trials(frame, sort="val/miou", where=None, top=3)
        assert list(mixed.rows["trial"]) == ["0002", "0001", "0000"]
        assert "are above trials that had it" in mixed.notes[0]
        assert rank_trials(frame, sort=None, where="full_budget", top=None).notes == ()

    @pytest.mark.parametrize(
        ("sort", "first"),
        [
            ("val/loss", "0002"),  # less is better
            ("-val/loss", "0000"),
            ("val/iou/cell", "0002"),  # more is better
            ("optimizer.lr", "0001"),
            ("-optimizer.lr", "0003"),
            ("trial", "0000"),
        ],
    )
    def test_the_better_or_smaller_end_comes_first(self, frame, sort, first):
        rows = rank_trials(frame, sort=sort, where="epochs > 0 or trial == '0003'", top=None).rows
        scored = rows[rows["trial"] != "0004"]
        assert scored.iloc[0]["trial"] == first
        assert sort.removeprefix("-") in rows

    def test_an_unknown_column_is_told_with_the_nearest(self, frame):
        with pytest.raises(ConfigError, match=r"--sort: 'val/mio'.*Did you mean 'val/miou'"):
            rank_trials(frame, sort="val/mio", where=None, top=None)
