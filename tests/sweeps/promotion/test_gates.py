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


FIGURES = {"hd95/cell": 4.2, "nsd/cell": 0.91, "ece": 0.03, "nsd/wall": math.nan}


def limits(**gates):
    model = Measures({**CHAMPION, **FIGURES}, 10.0, 50.0)
    found = check_gates(Gates(**gates), model, CHAMPION, "there is none")
    return {v.gate: v for v in found[4:]}


def test_any_figure_is_a_gate():
    found = limits(minimum={"nsd/cell": 0.9, "iou/wall": 0.71}, maximum={"hd95/cell": 4, "ece": 1})
    assert {name: v.light for name, v in found.items()} == {
        "nsd/cell": "green",
        "iou/wall": "red",
        "hd95/cell": "red",
        "ece": "green",
    }
    assert "allowed: at most 4; missed by 0.2000" in found["hd95/cell"].describe()
    assert "allowed: at least 0.71; missed by 0.0100" in found["iou/wall"].describe()


def test_a_limit_is_reached_exactly_and_holds_without_a_champion():
    model = Measures({**CHAMPION, **FIGURES}, 10.0, 50.0)
    gates = Gates(minimum={"nsd/cell": 0.91}, maximum={"hd95/cell": 4.2})
    assert [v.light for v in check_gates(gates, model, None, "none")[4:]] == ["green", "green"]


def test_what_could_not_be_computed_does_not_hold_its_limit():
    found = limits(minimum={"nsd/wall": 0.1})["nsd/wall"]
    assert found.red and "nothing is shown" in found.describe()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"promotion.minimum": {"nsd/cell": 0.9}}, {"nsd/cell": 0.9}),
        ({"promotion.minimum.nsd/cell": 0.9}, {"ece": 1.0, "nsd/cell": 0.9}),
        ({"promotion.minimum.nsd/St. John": 0.9}, {"ece": 1.0, "nsd/St. John": 0.9}),
        ({"promotion.minimum.ece": 0.5}, {"ece": 0.5}),
    ],
)
def test_limits_are_set_all_together_or_one_by_one(changes, expected):
    assert changed_gates(Gates(minimum={"ece": 1.0}), changes).minimum == expected


def test_how_outlines_are_compared_is_set_beside_the_gates():
    changes = {"promotion.figures.tolerance": 3, "promotion.figures.outline": "contours"}
    figures = changed_gates(Gates(), changes).figures
    assert (figures.tolerance, figures.outline) == (3, "contours")
    with pytest.raises(ConfigError, match="Did you mean 'tolerance'"):
        changed_gates(Gates(), {"promotion.figures.tolerence": 3})


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("hd59/cell", "Did you mean 'hd95/cell'"),
        ("panoptic_qualty/wall", "Did you mean 'panoptic_quality/wall'"),
        ("zzz", "There are: boundary_iou"),
    ],
)
def test_a_figure_that_does_not_exist_is_told_with_the_nearest(limit, message):
    for side in ("minimum", "maximum"):
        for changes in (
            {f"promotion.{side}": {limit: 0.5}},
            {f"promotion.{side}.{limit}": 0.5},
        ):
            with pytest.raises(ConfigError, match=message):
                changed_gates(Gates(), changes)


def test_a_class_that_does_not_exist_is_told_with_the_nearest():
    classes = ("back", "cell", "wall")
    Gates(minimum={"nsd/cell": 0.5, "iou/back": 0.5, "nsd": 0.5}).require_classes(classes)
    with pytest.raises(ConfigError, match=r"promotion\.maximum: 'hd95/cel'.*mean 'hd95/cell'"):
        Gates(maximum={"hd95/cel": 3}).require_classes(classes)
    with pytest.raises(ConfigError, match="sensitivity/cell"):  # of two classes alone
        Gates(minimum={"sensitivity/cell": 0.5}).require_classes(classes)
    Gates(minimum={"sensitivity/cell": 0.5}).require_classes(("back", "cell"))


def test_a_recipe_sets_limits(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("promotion: {minimum: {nsd: 0.8}, figures: {tolerance: 1}}\n")
    recipe = load_recipe(str(path), {"promotion.minimum.iou/a.b": 0.02, "promotion.maximum.ece": 1})
    assert recipe.promotion.minimum == {"nsd": 0.8, "iou/a.b": 0.02}
    assert recipe.promotion.maximum == {"ece": 1}
    assert "nsd at least 0.8" in recipe.promotion.describe()
    with pytest.raises(ConfigError, match="Did you mean 'ece'"):
        load_recipe(str(path), {"promotion.maximum.eec": 1})


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
