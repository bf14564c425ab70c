"""Boundary IoU: the paper's bands, by their definition."""

import math

import numpy as np
import pytest

from tests.support.outlines import clouds, ellipses
from unetexp.metrics import boundary_iou


def band(mask, width):
    """The mask's pixels at most `width` from a pixel outside it, by the chessboard distance."""
    padded = np.pad(mask, width)
    found = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        found[row, column] = not padded[
            row : row + 2 * width + 1, column : column + 2 * width + 1
        ].all()
    return found


@pytest.mark.parametrize("ratio", [0.001, 0.05, 0.2])
@pytest.mark.parametrize("masks", [ellipses(), clouds(3), clouds(4)])
def test_it_is_the_iou_of_the_bands(masks, ratio):
    width = max(1, round(ratio * math.hypot(*masks[0].shape)))
    bands = [band(mask, width) for mask in masks]
    expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    assert boundary_iou(*masks, dilation_ratio=ratio) == pytest.approx(expected)


def test_bands_as_wide_as_the_masks_give_the_iou():
    truth, prediction = ellipses()
    expected = (truth & prediction).sum() / (truth | prediction).sum()
    assert boundary_iou(truth, prediction, dilation_ratio=1) == pytest.approx(expected)


def test_empty_masks():
    truth, empty = ellipses()[0], np.zeros((40, 48), bool)
    assert math.isnan(boundary_iou(empty, empty))
    assert boundary_iou(truth, empty) == boundary_iou(empty, truth) == 0
    assert boundary_iou(truth, truth) == 1
