"""Promotions on a hand-made store: what is chosen, what is compared, what is said and changed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import signal
import threading

import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from sweeps.promotion import judging
from sweeps.promotion import promote as promotion
from sweeps.promotion.confirmation.outcome import Confirmation, SeedScores
from sweeps.promotion.evaluation import uses_of_test_split
from sweeps.promotion.plan import Request, plan_promotion
from sweeps.promotion.registry import MODEL, champion
from sweeps.tracking.store import CONFIRMS, open_store
from tests.support.promotable import Place, Trial
from tests.support.promoting import aliases, call, copy_of, read_card, trial_run
from unetexp.models.saved_model import WEIGHTS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with the sweep `good`, then `bad`, whose best is no good on the test split."""
    made = Place(tmp_path_factory.mktemp("promotion"))
    good, poor, worse = (made.model(answer) for answer in range(3))
    focal = {"loss.kind": "focal", "loss.gamma": 2.5}
    made.sweep(
        "good",
        Trial(0.5, poor),
        Trial(0.8, good),
        Trial(0.9, stop_reason="asha"),
        Trial(0.4, worse, values=focal),
        Trial(0.3),
    )
    made.sweep("bad", Trial(0.95, poor), Trial(0.7, good))
    return made


@pytest.fixture(scope="module", autouse=True)
def _each_model_is_evaluated_once():
    """The same weights on the same images give the same figures."""
    evaluate_model, known = judging.evaluate_model, {}

    def remembered(title, run_id, folder, data, split, device, val_miou=None):
        weights = hashlib.sha256((folder / WEIGHTS).read_bytes()).digest()
        key = (weights, data.fingerprint, split)
        if key not in known:
            known[key] = evaluate_model(title, run_id, folder, data, split, device, val_miou)
        named = {"title": title, "run_id": run_id, "folder": folder, "val_miou": val_miou}
        return dataclasses.replace(known[key], **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "evaluate_model", remembered)
        yield


@pytest.fixture(scope="module")
def after_good(place):
    """The store's database once the sweep `good` has been promoted."""
    database = place.root / "promoted.db"
    shutil.copyfile(place.root / "mlflow.db", database)
    code, said = call(f"sqlite:///{database}", "good")
    assert code == 0, said
    return database


@pytest.fixture
def promoted(after_good, tmp_path):
    """A copy of the store in which `good` is champion, to be changed by one test."""
    return copy_of(after_good, tmp_path.name)


@pytest.fixture
def uri(place, tmp_path):
    """A copy of the store, to be changed by one test."""
    return copy_of(place.root / "mlflow.db", tmp_path.name)


class TestTheFirst:
    def test_the_best_full_budget_trial_becomes_champion(self, uri):
        code, said = call(uri, "good")
        assert code == 0, said
        assert aliases(uri) == ("1", None)
        run = trial_run(uri, "good", "0001")
        assert champion(open_store(uri)).run_id == run.info.run_id
        assert run.data.metrics["test/miou"] > 0.1
        assert "test/iou/cell" in run.data.metrics
        for part in (
            "trial 0001 *",
            "chosen by val/miou (0.8000)",
            "trial 0001 against trial 0000: mIoU +",
            "there is no champion yet",
            "champion: none -> unetexp version 1, trial 0001 of sweep good",
            "used 1 time by promotions",
            "unetexp predict models:/unetexp@champion",
            "make serve",
            "unetexp export models:/unetexp@champion --to openvino --precision int8 --out",
        ):
            assert part in said
        assert "trial 0002" not in said  # stopped early
        assert "trial 0004" not in said  # kept no weights

    def test_its_card_says_what_has_to_be_known(self, promoted, place):
        card = read_card(promoted, "1")
        data = place.data
        run = trial_run(promoted, "good", "0001")
        for part in (
            "# unetexp: trial 0001 of sweep good",
            "resnet18",
            "back, cell, wall",
            data.fingerprint,
            "| test | 6 | 32 | 32 |",
            "| train | 8 | 32 | 32 |",
            "Worst classes: ",
            "Worst images: ",
            "95 % interval",
            "This test split has been used 1 time by promotions",
            "Runner-up: trial 0001 against trial 0000",
            "| mIoU | there is no champion yet |",
            "0123abc with uncommitted changes",
            "| initial weights | none (no hash was recorded) |",
            f"run `{run.info.run_id}`",
            "kind: adamw",
            "Seed 0.",
            "## Limits",
            "The test split has 6 images: intervals are wide",
        ):
            assert part in card
        for name in data.class_names:
            assert re.search(rf"\| {name} \| [01]\.\d{{4}} \([01]\.\d{{4}} to ", card)
        assert "force" not in card

    def test_its_card_and_its_run_have_the_figures_of_outlines_and_objects(self, promoted):
        card = read_card(promoted, "1")
        for part in (
            "## Figures on the test split",
            "agree up to 2 px",
            "| HD95 | ",
            "| PQ | ",
            "expected calibration error",
            "Objects by size",
            "cell: missed altogether in 6 images, predicted in 0 images without it.",
        ):
            assert part in card
        metrics = trial_run(promoted, "good", "0001").data.metrics
        diagonal = 32 * 2**0.5  # of images in which it finds no cell
        assert metrics["test/hd95/cell"] == pytest.approx(diagonal)
        assert metrics["test/nsd/cell"] == 0 and metrics["test/missed_images/cell"] == 6
        assert {"test/ece", "test/brier", "test/boundary_iou/wall"} <= metrics.keys()

    def test_the_newest_finished_sweep_is_taken(self, uri, place):
        store = open_store(uri)
        code, said = call(uri, "--dry-run")
        assert code == 0, said
        assert "Sweep bad" in said
        store.client.set_tag(store.sweep_run("bad").info.run_id, CONFIRMS, "good")
        assert "Sweep good" in call(uri, "--dry-run")[1]
        store.client.update_run(store.sweep_run("good").info.run_id, status="KILLED")
        code, said = call(uri)
        assert code == 2
        assert "no finished sweep" in said

    def test_the_test_split_has_no_say_in_the_choice(self, uri):
        code, said = call(uri, "bad")
        assert code == 0, said
        assert "unetexp version 1, trial 0000 of sweep bad" in said
        assert re.search(r"trial 0000 against trial 0001: mIoU -0\.\d+", said)
        assert "only used to evaluate" in said

    def test_a_dry_run_judges_and_changes_nothing(self, uri, place):
        code, said = call(uri, "good", "--dry-run")
        assert code == 0
        assert "Nothing was changed" in said
        assert aliases(uri) == (None, None)
        assert uses_of_test_split(open_store(uri), place.data.fingerprint) == 1

    def test_fewer_candidates(self, uri):
        _, said = call(uri, "good", "--dry-run", "--candidates", 1)
        assert "trial 0001 *" in said
        assert "trial 0000" not in said

    def test_a_run_that_is_asked_for(self, uri):
        code, said = call(uri, "--run", trial_run(uri, "good", "0003").info.run_id)
        assert code == 0, said
        assert "version 1, trial 0003 of sweep good" in said
        assert "Trial 0001 scored higher in the sweep (0.8000 against 0.4000)" in said
        assert "against trial 0001" in said


class TestASecond:
    def test_a_red_gate_changes_nothing_and_says_by_how_much(self, promoted, place):
        before = trial_run(promoted, "bad", "0000").data
        code, said = call(promoted, "bad")
        assert code == 3
        assert aliases(promoted) == ("1", None)
        assert re.search(r"gate red: mIoU: 0\.\d{4}, allowed: at least .*missed by 0\.\d{4}", said)
        assert re.search(r"gate red: class IoU: (cell|wall|back) -0\.\d{4}", said)
        assert "--force" in said
        assert "against the champion, version 1: mIoU -" in said
        assert "used 2 times" in said
        client = MlflowClient(tracking_uri=promoted, registry_uri=promoted)
        assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1
        after = trial_run(promoted, "bad", "0000").data
        assert (after.metrics, after.tags) == (before.metrics, before.tags)

    def test_margins_let_it_through(self, promoted):
        wide = ["--set", "promotion.miou_margin=1", "--set", "promotion.class_margin=1"]
        code, said = call(promoted, "bad", *wide)
        assert code == 0, said
        assert "champion: version 1 -> unetexp version 2" in said
        assert "previous: version 1" in said
        assert "--rollback" in said
        assert aliases(promoted) == ("2", "1")

    def test_force_goes_on_and_the_card_says_so(self, promoted):
        code, said = call(promoted, "bad", "--force")
        assert code == 0, said
        assert aliases(promoted) == ("2", "1")
        card = read_card(promoted, "2")
        assert "Promoted with `--force`" in card
        assert "Red gate: mIoU" in card
        assert "used 2 times" in card
        assert "Champion before it: trial 0000 against the champion, version 1" in card

    def test_rollback_needs_a_previous_one(self, uri, promoted):
        for store in (uri, promoted):
            code, said = call(store, "--rollback")
            assert code == 2
            assert "no champion" in said or "no previous one" in said

    def test_rollback_swaps_and_swaps_again(self, promoted):
        call(promoted, "bad", "--force")
        code, said = call(promoted, "--rollback")
        assert code == 0
        assert "champion: version 2 -> version 1" in said
        assert aliases(promoted) == ("1", "2")
        assert call(promoted, "--rollback")[0] == 0
        assert aliases(promoted) == ("2", "1")

    @pytest.mark.parametrize(
        ("gate", "code", "message"),
        [
            ("maximum.hd95/cell=5", 3, "gate red: hd95/cell: 45.2548, allowed: at most 5"),
            ("minimum={brier: 0.1, nsd/cell: 0}", 0, "brier"),
            ("minimum.nsd/cel=0.5", 2, "Did you mean 'nsd/cell'"),
        ],
    )
    def test_a_figure_as_a_gate(self, uri, gate, code, message):
        found, said = call(uri, "good", "--set", f"promotion.{gate}")
        assert found == code, said
        assert message in " ".join(said.split())
        assert (aliases(uri) == (None, None)) is (code != 0)

    @pytest.mark.parametrize("gate", ["max_latency_ms", "max_size_mb"])
    def test_latency_and_size(self, uri, gate):
        code, said = call(uri, "good", "--set", f"promotion.{gate}=0.01")
        assert code == 3
        assert "at most 0.01" in said
        assert aliases(uri) == (None, None)

    def test_the_same_again_is_said(self, promoted):
        code, said = call(promoted, "good")
        assert code == 0, said
        assert "is the current champion, version 1" in said
        assert aliases(promoted) == ("2", "1")


class TestMistakes:
    @pytest.mark.parametrize(
        ("trial", "why"), [("0002", "full budget"), ("0004", "weights were not kept")]
    )
    def test_a_run_that_cannot_be_names_those_that_can(self, uri, trial, why):
        code, said = call(uri, "--run", trial_run(uri, "good", trial).info.run_id)
        assert code == 2
        assert why in said
        able = [trial_run(uri, "good", number).info.run_id for number in ("0001", "0000", "0003")]
        places = [said.index(run_id) for run_id in able]
        assert places == sorted(places)

    def test_a_run_that_is_no_trial(self, uri):
        assert call(uri, "--run", "0" * 32)[0] == 2
        sweep = open_store(uri).sweep_run("good").info.run_id
        code, said = call(uri, "--run", sweep)
        assert code == 2
        assert "not a trial" in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["goot"], "Did you mean 'good'"),
            (["good", "--run", "0" * 32], "not both"),
            (["good", "--rollback"], "no other choice"),
            (["good", "--seeds", "2"], "--confirm"),
            (["good", "--race"], "--confirm K, with two trials or more"),
            (["good", "--confirm", "1", "--race"], "--confirm K, with two trials or more"),
            (["good", "--epochs", "2"], "--epochs 2: this needs --train-final"),
            (["good", "--with-val"], "--with-val: this needs --train-final"),
            (["good", "--ensemble"], "--ensemble: this needs --train-final"),
            (["good", "--soup"], "--soup: this needs --train-final"),
            (["good", "--train-final", "--soup", "--seeds", "1"], "--seeds 1 trains one"),
            (["good", "--train-final", "--ensemble", "--seeds", "1"], "at least --seeds 2"),
            (["good", "--train-final", "--confirm", "1"], "give one, and then the other"),
            (["good", "--train-final", "--epochs", "100001"], "100000"),
            (["--train-final", "--rollback"], "no other choice"),
            (["good", "--confirm", "9"], "at most 4"),
            (["good", "--set", "promotion.speed=1"], "promotion.speed"),
        ],
    )
    def test_what_does_not_go_together(self, uri, arguments, message):
        code, said = call(uri, *arguments)
        assert code == 2
        assert message in said
        assert "Traceback" not in said

    def test_no_sweeps(self, tmp_path):
        code, said = call(f"sqlite:///{tmp_path}/none.db", "good")
        assert code == 2
        assert "no sweeps yet" in said

    def test_no_trial_with_weights(self, uri, place):
        store = open_store(uri)
        for trial in ("0000", "0001"):
            store.client.delete_tag(trial_run(uri, "bad", trial).info.run_id, "checkpoint")
        code, said = call(uri, "bad")
        assert code == 2
        assert "--resume bad" in said

    def test_data_that_has_changed(self, uri, place):
        store = open_store(uri)
        parent = store.sweep_run("good").info.run_id
        store.client.set_tag(parent, "data.fingerprint", "f" * 64)
        code, said = call(uri, "good", "--force")
        assert code == 2
        assert "f" * 64 in said
        assert place.data.fingerprint in said

    def test_no_test_split(self, tmp_path, uri):
        place = Place(tmp_path / "plain", {"train": 2, "val": 2}, uri=uri)
        place.sweep("plain", Trial(0.5, place.model(0)))
        code, said = call(place.uri, "plain")
        assert code == 2
        assert "no test split" in said
        assert "--split val" in said
        code, said = call(place.uri, "plain", "--split", "val")
        assert code == 0, said
        card = read_card(place.uri, "1")
        assert "Evaluated on the validation split" in card
        assert "been used" not in card
        assert "test/miou" not in trial_run(place.uri, "plain", "0000").data.metrics
        assert call(place.uri, "plain", "--force")[0] == 0
        assert "It was not evaluated on a test split" in read_card(place.uri, "2")

    def test_a_champion_of_other_classes(self, tmp_path, promoted):
        other = Place(tmp_path / "other", class_names=("back", "vessel"), uri=promoted)
        other.sweep("vessels", Trial(0.5, other.model(0)))
        code, said = call(promoted, "vessels")
        assert code == 2
        assert "back, cell, wall" in said
        assert "--force" in said
        code, said = call(promoted, "vessels", "--force")
        assert code == 0, said
        assert aliases(promoted) == ("2", "1")
        assert "It was not compared with the champion" in read_card(promoted, "2")


class TestInterruption:
    def test_while_evaluating(self, uri, monkeypatch, place):
        def interrupted(*_arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(judging, "evaluate_model", interrupted)
        assert call(uri, "good")[0] == 130
        assert aliases(uri) == (None, None)
        assert uses_of_test_split(open_store(uri), place.data.fingerprint) == 0

    def test_while_registering(self, uri, monkeypatch):
        register = promotion.register

        def registered(*arguments, **named):
            version = register(*arguments, **named)
            os.kill(os.getpid(), signal.SIGINT)
            return version

        monkeypatch.setattr(promotion, "register", registered)
        assert call(uri, "good")[0] == 130
        assert aliases(uri) == (None, None)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        assert not client.search_model_versions(f"name = '{MODEL}'")


def test_two_at_once_take_turns(uri):
    decisions = []

    def run():
        store = open_store(uri)
        plan = plan_promotion(store, Request(sweep="good"), torch.device("cpu"))
        ready.wait()
        promotion.promote(plan, None, Console(quiet=True), decisions.append, dry=False)

    ready = threading.Barrier(2)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = decisions
    assert first.champion is None
    assert second.champion.other.title == "the champion, version 1"
    assert (first.uses, second.uses) == (1, 2)
    assert aliases(uri) == ("2", "1")


def confirmation(*scores):
    trials = [
        SeedScores(f"000{i}", 0.9, dict(enumerate(some, start=1))) for i, some in enumerate(scores)
    ]
    return Confirmation("x-confirm", (1, 2), tuple(trials))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.8, 0.9], [0.7, 0.6]], "0000 is confirmed: 0.2000 above trial 0001"),
        ([[0.7, 0.6], [0.8, 0.9]], "0000 is not confirmed: trial 0001 is 0.2000 above"),
        ([[0.8, 0.7], [0.7, 0.79]], "neither confirmed nor refuted"),
        ([[0.8], [0.7]], "neither confirmed nor refuted"),
        ([[0.8, 0.9]], "cannot confirm a choice"),
        ([[], [0.7, 0.6]], "all its trainings failed"),
    ],
)
def test_what_a_confirmation_says(scores, message):
    assert message in confirmation(*scores).verdict()


@pytest.mark.slow
def test_the_choice_is_confirmed_by_training_again(uri, place, tmp_path):
    code, said = call(uri, "good", "--confirm", 1, "--seeds", 2, "--storage", tmp_path / "runs")
    assert code == 0, said
    assert "Best val/miou over 2 new seeds (sweep good-confirm)" in said
    assert re.search(r"trial 0001: mean 0\.\d{4}, standard deviation 0\.\d{4}", said)
    store = open_store(uri)
    parent = store.sweep_run("good-confirm")
    runs = store.trial_runs(parent.info.run_id)
    assert sorted(run.data.params["seed"] for run in runs) == ["1", "2"]
    assert {run.data.tags["stop_reason"] for run in runs} == {"completed"}
    assert {run.data.params["decoder.upsampling"] for run in runs} == {"bilinear"}
    assert champion(store).run_id == trial_run(uri, "good", "0001").info.run_id
    card = read_card(uri, "1")
    assert "trained again with 1, 2" in card
    assert "sweep good-confirm" in card
