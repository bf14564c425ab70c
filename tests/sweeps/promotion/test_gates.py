"""Gates: what is green, what is red, by how much, and what cannot be said."""

from __future__ import annotations

import math

import pytest

from sweeps.config.gates import Gates, changed_gates
from sweeps.config.loading import load_recipe
from sweeps.driver.plan import SweepOptions, describe, plan_sweep
from sweeps.promotion.gates import Measures, check_gates
from unetexp.errors import ConfigError

CHAMPION = {"miou": 0.80, "iou/cell": 0.9, "iou/wall": 0.7, "iou/rare": math.nan}


def verdicts(gates=None, champion=CHAMPION, latency_ms=10.0, size_mb=50.0, **figures):
    """By gate, the verdicts on the champion itself with some figures changed."""
    measured = {**CHAMPION, **{name.replace("_", "/"): value for name, value in figures.items()}}
    model = Measures(measured, latency_ms, size_mb)
    return {v.gate: v for v in check_gates(gates or Gates(), model, champion, "there is none")}


def test_the_champions_equal_passes():
    found = verdicts()
    assert [v.green for v in found.values()] == [True, True, None, None]
    assert list(found) == ["mIoU", "class IoU", "latency", "size"]


@pytest.mark.parametrize(
    ("margin", "miou", "green"),
    [(0.0, 0.8, True), (0.0, 0.79999, False), (0.05, 0.75, True), (0.05, 0.7499, False)],
)
def test_mean_iou_may_lie_below_the_champions_by_the_margin(margin, miou, green):
    assert verdicts(Gates(miou_margin=margin), miou=miou)["mIoU"].green is green


def test_a_red_gate_says_by_how_much():
    assert "missed by 0.0300" in verdicts(miou=0.77)["mIoU"].describe()
    tiny = verdicts(miou=0.8 - 1e-5)["mIoU"]
    assert "missed by 1.0e-05" in tiny.describe()


@pytest.mark.parametrize(("wall", "green"), [(0.65, True), (0.6499, False), (0.9, True)])
def test_no_class_may_be_worse_by_more_than_its_margin(wall, green):
    assert verdicts(iou_wall=wall)["class IoU"].green is green


def test_all_classes_that_are_worse_are_named_worst_first():
    found = verdicts(iou_wall=0.5, iou_cell=0.8, miou=0.9)
    assert found["mIoU"].green
    text = found["class IoU"].describe()
    assert text.index("wall -0.2000") < text.index("cell -0.1000")
    assert "0.1500 (wall), 0.0500 (cell)" in text


def test_classes_that_do_not_occur_for_both_are_left_out():
    assert verdicts(iou_rare=0.0)["class IoU"].green
    assert verdicts(iou_wall=math.nan)["class IoU"].green
    none = verdicts(iou_wall=math.nan, iou_cell=math.nan)["class IoU"]
    assert none.green is None


def test_without_a_champion_its_gates_are_skipped_with_a_word():
    found = verdicts(Gates(max_latency_ms=20, max_size_mb=60), champion=None, miou=0.01)
    assert [v.light for v in found.values()] == ["skipped", "skipped", "green", "green"]
    assert found["mIoU"].limit == "there is none"


def test_latency_and_size():
    gates = Gates(max_latency_ms=8, max_size_mb=50)
    found = verdicts(gates)
    assert found["latency"].red
    assert found["size"].green
    assert "missed by 2.0 ms" in found["latency"].describe()
    assert "missed by 0.5 MB" in verdicts(gates, size_mb=50.5)["size"].describe()


def test_gates_are_changed_by_their_path():
    gates = changed_gates(Gates(), {"promotion.class_margin": 0.1, "promotion.max_size_mb": 9})
    assert gates == Gates(class_margin=0.1, max_size_mb=9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"promotion.clas_margin": 0.1}, "Did you mean 'class_margin'"),
        ({"promotion.class_margin": "wide"}, "promotion.class_margin"),
        ({"promotion.class_margin": -1}, "promotion.class_margin"),
        ({"optimizer.lr": 1}, "promotion.class_margin"),
        ({"promotion": 1}, "promotion.miou_margin"),
    ],
)
def test_what_is_no_gate_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        changed_gates(Gates(), changes)


def test_a_recipe_sets_gates(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("promotion: {max_latency_ms: 30}\n")
    recipe = load_recipe(str(path), {"promotion.class_margin": 0.02})
    assert recipe.promotion == Gates(max_latency_ms=30, class_margin=0.02)
    with pytest.raises(ConfigError, match=r"promotion\.max_latency"):
        load_recipe(str(path), {"promotion.max_latency": 3})


def test_a_dry_run_shows_the_gates(tmp_path):
    options = SweepOptions(
        changes={"promotion.class_margin": 0.02, "promotion.max_latency_ms": 40},
        gpus=0,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        storage=str(tmp_path),
    )
    text = describe(plan_sweep(options))
    assert "no class's IoU more than 0.02 below" in text
    assert "latency at most 40 ms" in text
    assert "no size limit" in text
