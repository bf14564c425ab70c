"""Objects found and missed: torchmetrics' panoptic quality, the rules of matching."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.detection import panoptic_quality as torchmetrics_pq

from tests.support.outlines import clouds
from unetexp.metrics import instance_f1, panoptic_quality
from unetexp.metrics.instances import match_objects


def numbered(mask):
    return ndimage.label(mask, np.ones((3, 3)))[0]


@pytest.mark.parametrize("seed", range(6))
def test_it_is_torchmetrics_panoptic_quality(seed):
    truth = clouds(seed)[0]
    prediction = truth ^ (np.random.default_rng(seed).random(truth.shape) < 0.05)
    pairs = [
        torch.stack([torch.from_numpy(part) for part in (mask.astype(int), numbered(mask))], -1)
        for mask in (prediction, truth)
    ]
    expected = torchmetrics_pq(
        pairs[0][None].int(), pairs[1][None].int(), things={1}, stuffs={0}, return_per_class=True
    )
    assert panoptic_quality(truth, prediction) == pytest.approx(float(expected[0, 0]))
    as_numbers = panoptic_quality(numbered(truth) * 7, numbered(prediction))
    assert as_numbers == pytest.approx(float(expected[0, 0]))


def objects(*corners):
    """Squares of 4 pixels' side at these rows and columns."""
    mask = np.zeros((20, 30), bool)
    for row, column in corners:
        mask[row : row + 4, column : column + 4] = True
    return mask


def test_one_found_one_missed_one_too_many():
    truth, prediction = objects((1, 1), (10, 10)), objects((1, 2), (14, 22))
    matches = match_objects(truth, prediction)
    assert (matches.found, matches.missed, matches.false) == (1, 1, 1)
    assert instance_f1(truth, prediction) == 0.5
    assert panoptic_quality(truth, prediction) == pytest.approx(12 / 20 / 2)
    assert matches.areas.tolist() == [16, 16] and matches.covered.tolist() == [12, 0]


def test_half_an_overlap_is_no_match():
    truth = np.zeros((4, 8), bool)
    truth[0, :3] = True
    prediction = np.zeros_like(truth)
    prediction[0, :6] = True
    assert instance_f1(truth, prediction) == 0


def test_touching_objects_are_two_by_their_numbers_and_one_as_a_mask():
    truth = np.zeros((6, 8), int)
    truth[1:5, :4], truth[1:5, 4:] = 3, 9
    assert instance_f1(truth, truth) == 1
    assert match_objects(truth, truth).found == 2
    assert match_objects(truth > 0, truth > 0).found == 1
    assert instance_f1(truth, truth > 0) == 0  # two of half its size


def test_empty_masks():
    some, empty = objects((1, 1)), objects()
    for figure in (panoptic_quality, instance_f1):
        assert math.isnan(figure(empty, empty))
        assert figure(some, empty) == figure(empty, some) == 0
