"""Bootstrap intervals against a plain resampling, against scipy's, and their coverage."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unetexp.errors import DataError
from unetexp.metrics.bootstrap import Interval, PairedComparison, compare_paired, score_intervals
from unetexp.metrics.segmentation import SegmentationMetrics


def images(count, classes=3, seed=0, skill=0.7, pixels=60):
    """Confusion matrices (I, K, K) of random images, in which some classes are absent."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(classes, 0.5), size=count)
    right = np.eye(classes) * skill + (1 - skill) / classes
    return np.stack([rng.multinomial(pixels, (t[:, None] * right).ravel()) for t in truth]).reshape(
        count, classes, classes
    )


def metrics_of(matrix):
    metrics = SegmentationMetrics(len(matrix))
    metrics._confusion = torch.from_numpy(matrix)
    return metrics.compute()


def test_values_are_those_of_the_metric():
    matrices = images(7, classes=4)
    matrices[:, 2, :] = 0
    matrices[:, :, 2] = 0  # a class that does not occur
    expected = metrics_of(matrices.sum(axis=0))
    found = score_intervals(matrices, repeats=50)
    assert set(found) == {"miou", "dice", "pixel_accuracy", *(f"iou/{k}" for k in range(4))}
    for name, interval in found.items():
        np.testing.assert_allclose(interval.value, expected[name], rtol=1e-12, equal_nan=True)
    assert math.isnan(found["iou/2"].low) and math.isnan(found["iou/2"].high)


def test_intervals_agree_with_one_resample_after_the_other():
    matrices = images(12)
    rng = np.random.default_rng(5)
    slow = [metrics_of(matrices[rng.integers(12, size=12)].sum(axis=0)) for _ in range(3000)]
    for name, interval in score_intervals(matrices, repeats=6000).items():
        low, high = np.nanpercentile([metrics[name] for metrics in slow], (2.5, 97.5))
        assert interval.low == pytest.approx(low, abs=0.02)
        assert interval.high == pytest.approx(high, abs=0.02)


def test_accuracy_agrees_with_scipy():
    matrices = images(40, pixels=100)  # equally large images: the accuracy is a mean
    accuracy = np.trace(matrices, axis1=1, axis2=2) / 100
    expected = stats.bootstrap((accuracy,), np.mean, n_resamples=9999, method="percentile", rng=1)
    found = score_intervals(matrices, repeats=9999)["pixel_accuracy"]
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=2e-3)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=2e-3)


def test_they_hold_the_truth_about_as_often_as_they_say():
    everything = images(20_000, seed=1)
    truth = metrics_of(everything.sum(axis=0))["miou"]
    drawn = [everything[start : start + 40] for start in range(0, 8000, 40)]
    found = [score_intervals(sample, repeats=400)["miou"] for sample in drawn]
    hits = np.mean([interval.low <= truth <= interval.high for interval in found])
    assert 0.88 <= hits <= 0.99


def test_the_same_seed_gives_the_same_intervals_and_chunks_do_not_matter(monkeypatch):
    matrices = images(9)
    whole = score_intervals(matrices, repeats=100, seed=3)
    assert score_intervals(matrices, repeats=100, seed=4) != whole
    monkeypatch.setattr("unetexp.metrics.bootstrap._DRAWS_AT_ONCE", 70)
    assert score_intervals(matrices, repeats=100, seed=3) == whole


def test_one_image_has_metrics_but_no_interval():
    found = score_intervals(images(1))
    assert not math.isnan(found["miou"].value)
    assert math.isnan(found["miou"].low) and math.isnan(found["miou"].high)
    comparison = compare_paired(images(1), images(1, seed=1))
    assert comparison.tie and math.isnan(comparison.probability)


def test_images_that_are_all_void_say_nothing():
    found = score_intervals(np.zeros((5, 2, 2), np.int64))
    assert all(math.isnan(interval.value) for interval in found.values())


def test_the_better_model_wins_and_its_mirror_loses():
    good, bad = images(60, skill=0.9), images(60, skill=0.5)
    forth, back = compare_paired(good, bad), compare_paired(bad, good)
    assert forth.difference.low > 0 and forth.probability == 1 and not forth.tie
    assert back.difference.high < 0 and back.probability == 0 and not back.tie
    assert forth.difference.value == pytest.approx(-back.difference.value)
    assert forth.difference.value == pytest.approx(
        metrics_of(good.sum(axis=0))["miou"] - metrics_of(bad.sum(axis=0))["miou"]
    )


def test_a_model_against_itself_is_a_tie():
    comparison = compare_paired(images(20), images(20))
    assert comparison == PairedComparison(Interval(0.0, 0.0, 0.0), 0.5)
    assert comparison.tie


def test_pairing_sees_what_two_intervals_would_hide():
    bad = images(80, skill=0.6)
    good = bad.copy()
    moved = good[:, 0, 1] // 4  # a few pixels of every image corrected
    good[:, 0, 1] -= moved
    good[:, 0, 0] += moved
    apart = score_intervals(good)["miou"].low > score_intervals(bad)["miou"].high
    assert not apart and not compare_paired(good, bad).tie


@pytest.mark.parametrize("shape", [(0, 2, 2), (3, 2, 3), (2, 2)])
def test_what_is_no_confusion_matrix_an_image_is_refused(shape):
    with pytest.raises(DataError, match="expected one"):
        score_intervals(np.zeros(shape, np.int64))


def test_other_images_cannot_be_compared():
    with pytest.raises(DataError, match="the same images"):
        compare_paired(images(3), images(4))
