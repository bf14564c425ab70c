"""The figures of a split: sums and means over its images, what is empty, void, groups, sizes."""

import math

import numpy as np
import pytest
import torch

from tests.support.outlines import clouds
from unetexp.metrics import (
    boundary_iou,
    cl_dice,
    hausdorff95,
    instance_f1,
    normalized_surface_dice,
)
from unetexp.metrics.boundary import boundary_counts
from unetexp.metrics.calibration import BINS, calibration_sums
from unetexp.metrics.figures.collector import FigureCollector
from unetexp.metrics.figures.families import figure_names, foreground
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.instances import match_objects
from unetexp.metrics.segmentation import SegmentationMetrics

NAMES = ("background", "cell", "wall")
SIZE = (40, 50)


def maps(seed, void=False):
    """Truth and prediction (H, W) of three classes."""
    found = []
    for own in (seed, seed + 100):
        rng = np.random.default_rng(own)
        drawn = np.zeros(SIZE, np.uint8)
        for label in (1, 2):
            for _ in range(3):
                row, column = rng.integers(0, 30), rng.integers(0, 40)
                drawn[row : row + rng.integers(3, 9), column : column + rng.integers(3, 9)] = label
        found.append(drawn)
    truth, prediction = found
    mixed = np.where(np.random.default_rng(seed).random(SIZE) < 0.8, truth, prediction)
    if void:
        truth = truth.copy()
        truth[:, 20:30] = 255
    return truth, mixed


def collected(pairs, names=NAMES, **options):
    collector = FigureCollector(names, [f"image{n}" for n in range(len(pairs))], **options)
    for index, (truth, prediction) in reversed(list(enumerate(pairs))):  # in any order
        shares = torch.nn.functional.one_hot(torch.from_numpy(prediction).long(), len(names))
        own = torch.from_numpy(truth)
        sums = calibration_sums(shares.movedim(-1, 0)[None].double(), own[None])[0]
        collector(index, torch.from_numpy(prediction), own, sums)
    return collector.figures()


@pytest.mark.parametrize("void", [False, True])
def test_each_figure_is_its_function_over_the_set_or_the_mean_over_images(void):
    pairs = [maps(seed, void) for seed in range(5)]
    settings = FigureSettings(tolerance=1.5, outline="contours")
    values = collected(pairs, settings=settings).values
    for label in (1, 2):
        masks = [((t == label) & (t != 255), (p == label) & (t != 255)) for t, p in pairs]
        means = {
            "hd95": [hausdorff95(*pair, outline="contours") for pair in masks],
            "nsd": [normalized_surface_dice(*pair, 1.5, outline="contours") for pair in masks],
            "cldice": [cl_dice(*pair) for pair in masks],
            "boundary_iou_per_image": [boundary_iou(*pair) for pair in masks],
            "iou_per_image": [(t & p).sum() / (t | p).sum() for t, p in masks],
        }
        for family, expected in means.items():
            assert values[f"{family}/{NAMES[label]}"] == pytest.approx(np.mean(expected)), family
        hits, union = np.sum([boundary_counts(*pair) for pair in masks], axis=0)
        assert values[f"boundary_iou/{NAMES[label]}"] == pytest.approx(hits / union)
        matches = [match_objects(*pair) for pair in masks]
        weight = sum(each.weight for each in matches)
        found = sum(each.found for each in matches)
        assert values[f"instance_f1/{NAMES[label]}"] == pytest.approx(found / weight)
        quality = sum(each.iou.sum() for each in matches)
        assert values[f"panoptic_quality/{NAMES[label]}"] == pytest.approx(quality / weight)
    for family in ("hd95", "nsd", "instance_f1"):
        own = [values[f"{family}/{name}"] for name in NAMES[1:]]
        assert values[family] == pytest.approx(np.mean(own))


def test_iou_and_dice_are_those_of_the_confusion_matrix():
    pairs = [maps(seed, void=True) for seed in range(4)]
    metrics = SegmentationMetrics(3, class_names=NAMES)
    for truth, prediction in pairs:
        metrics.update(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
    computed, values = metrics.compute(), collected(pairs).values
    for name in ("cell", "wall"):
        for family in ("iou", "dice"):
            assert values[f"{family}/{name}"] == computed[f"{family}/{name}"]


def test_what_lies_in_void_changes_nothing():
    truth, prediction = maps(1, void=True)
    other = np.where(truth == 255, 2, prediction).astype(np.uint8)
    first, second = (collected([(truth, drawn)]).values for drawn in (prediction, other))
    assert first == pytest.approx(second, nan_ok=True)


def empty_pair(own, predicted):
    """An image of the class `cell` alone, in the truth, the prediction, both or neither."""
    pair = np.zeros((2, *SIZE), np.uint8)
    pair[0, 5:15, 5:15], pair[1, 5:15, 5:15] = own, predicted
    return pair[0], pair[1]


def test_both_empty_does_not_count_one_empty_is_the_worst_and_is_counted():
    right, missed, false, neither = (empty_pair(*both) for both in ((1, 1), (1, 0), (0, 1), (0, 0)))
    diagonal = math.hypot(*SIZE)
    for pairs, worst, images in (
        ([right, neither], 0, 1),
        ([right, neither, missed], 1, 2),
        ([right, neither, missed, false], 2, 3),
    ):
        values = collected(pairs).values
        assert values["hd95/cell"] == pytest.approx(worst * diagonal / images)
        for family in ("nsd", "cldice", "iou_per_image", "boundary_iou_per_image"):
            assert values[f"{family}/cell"] == pytest.approx((images - worst) / images)
        misses = values["missed_images/cell"] + values["false_images/cell"]
        assert misses == worst
        assert values["instance_f1/cell"] == pytest.approx(1 / (1 + worst / 2))


def test_missing_more_is_never_better():
    """HD95 that leaves out missed objects falls where hard objects are no longer found at all."""
    hard = maps(2)[0] == 1, np.roll(maps(2)[0] == 1, 9, axis=0)
    easy = empty_pair(1, 1)
    poor = collected([easy, (hard[0].astype(np.uint8), hard[1].astype(np.uint8))]).values
    none = collected([easy, (hard[0].astype(np.uint8), np.zeros(SIZE, np.uint8))]).values
    assert none["hd95/cell"] > poor["hd95/cell"] and none["nsd/cell"] <= poor["nsd/cell"]


def test_a_class_that_is_nowhere_is_undefined_and_leaves_the_mean():
    figures = collected([empty_pair(1, 1), empty_pair(1, 1)])
    assert math.isnan(figures.values["nsd/wall"]) and math.isnan(figures.intervals["nsd/wall"].low)
    assert figures.values["nsd"] == figures.values["nsd/cell"] == 1
    assert figures.values["missed_images/wall"] == 0


def test_sensitivity_and_specificity_are_of_two_classes():
    truth, prediction = (part % 2 for part in maps(3))
    values = collected([(truth, prediction)], ("no", "yes")).values
    assert values["sensitivity/yes"] == (prediction[truth == 1] == 1).mean()
    assert values["specificity/yes"] == (prediction[truth == 0] == 0).mean()
    assert not [name for name in figure_names(NAMES) if name.startswith("sens")]


def test_probabilities_of_all_pixels_make_one_error():
    pairs = [maps(seed) for seed in range(3)]
    wrong = np.mean([truth != prediction for truth, prediction in pairs])
    values = collected(pairs).values  # all of them sure
    assert values["ece"] == pytest.approx(wrong)
    assert values["brier"] == pytest.approx(2 * wrong)
    assert BINS == 15


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (("background", "a", "b"), [1, 2]),
        (("Back", "a", "b"), [1, 2]),
        (("road", "sky", "car"), [0, 1, 2]),
        (("healthy", "tumour"), [1]),
        (("0", "1"), [1]),
    ],
)
def test_the_background_has_no_figures_of_its_own(names, own):
    assert foreground(names) == own


def test_every_name_is_announced():
    figures = collected([maps(seed) for seed in range(3)])
    assert set(figures.values) == set(figure_names(NAMES)) == set(figures.intervals)


def test_intervals_hold_the_values_and_one_image_has_none():
    figures = collected([maps(seed) for seed in range(8)])
    for name, interval in figures.intervals.items():
        assert interval.value == pytest.approx(figures.values[name], nan_ok=True)
        if not math.isnan(interval.value):
            assert interval.low <= interval.value + 1e-9 and interval.value <= interval.high + 1e-9
    assert figures.intervals["hd95/cell"].low < figures.intervals["hd95/cell"].high
    assert math.isnan(collected([maps(0)]).intervals["nsd/cell"].low)


def test_an_images_own_figures():
    pairs = [maps(seed) for seed in range(3)]
    rows = collected(pairs).by_image()
    for index, (truth, prediction) in enumerate(pairs):
        expected = hausdorff95(truth == 2, prediction == 2)
        assert rows["hd95/wall"][index] == pytest.approx(expected)
        expected = instance_f1(truth == 1, prediction == 1)
        assert rows["instance_f1/cell"][index] == pytest.approx(expected)


def test_groups_have_the_figures_of_their_images():
    pairs = [maps(seed) for seed in range(5)]
    figures = collected(pairs, groups=("a", "b", "a", "b", "b"))
    groups = figures.by_group()
    assert list(groups) == ["a", "b"]
    for group, own in (("a", [0, 2]), ("b", [1, 3, 4])):
        alone = collected([pairs[index] for index in own])
        found = {name: interval.value for name, interval in groups[group].items()}
        without_sizes = {n: v for n, v in alone.values.items() if not n.startswith("object_recall")}
        assert {name: found[name] for name in without_sizes} == pytest.approx(
            without_sizes, nan_ok=True
        )


def test_objects_by_size_are_thirds_of_the_truths():
    truth, prediction = np.zeros((2, 60, 90), np.uint8)
    for number in range(9):  # sides 2 to 10, of which the smaller ones are missed
        row, column, side = 12 * (number // 3), 30 * (number % 3), number + 2
        truth[row : row + side, column : column + side] = 1
        if number >= 4:
            prediction[row : row + side, column : column + side] = 1
    figures = collected([(truth, prediction)], ("back", "cell"))
    rows = {row.size: row for row in figures.by_size}
    assert [rows[size].objects for size in ("small", "medium", "large")] == [3, 3, 3]
    assert [rows[size].up_to for size in ("small", "medium", "large")] == [16, 49, 100]
    found = [rows[size].found.value for size in ("small", "medium", "large")]
    assert found == pytest.approx([0, 2 / 3, 1])
    assert rows["medium"].covered.value == pytest.approx((36 + 49) / (25 + 36 + 49))
    assert figures.values["object_recall_medium/cell"] == pytest.approx(2 / 3)


def test_millimetres_where_the_spacing_is_known():
    pairs = [maps(0), maps(1)]
    spacings = {"image0": (2.0, 0.5), "image1": (1.0, 3.0)}
    figures = collected(pairs, spacings_mm=spacings)
    expected = [
        hausdorff95(truth == 1, prediction == 1, spacings[f"image{n}"])
        for n, (truth, prediction) in enumerate(pairs)
    ]
    assert figures.values["hd95/cell"] == pytest.approx(np.mean(expected))
    units = ("hd95/cell", "nsd/cell", "missed_images/cell")
    assert [figures.unit_of(name) for name in units] == ["mm", "1", "images"]
    assert collected(pairs).unit_of("hd95") == "px"
    areas = collected([pairs[0]], spacings_mm={"image0": (2.0, 0.5)}).by_size
    assert {row.up_to for row in areas} == {row.up_to for row in collected([pairs[0]]).by_size}


def test_threads_change_nothing():
    pairs = [maps(seed) for seed in range(12)]
    one, four = (collected(pairs, threads=threads).values for threads in (1, 4))
    assert one == four


def test_clouds_of_any_size_are_measured():
    pairs = [tuple(mask.astype(np.uint8) for mask in clouds(seed)) for seed in range(4)]
    assert 0 <= collected(pairs, ("back", "cell")).values["nsd/cell"] <= 1
