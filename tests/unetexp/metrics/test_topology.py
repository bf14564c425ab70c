"""clDice: what a broken, a thick and a missing line cost."""

import math

import numpy as np
import pytest
from skimage.morphology import skeletonize

from tests.support.outlines import clouds
from unetexp.metrics import cl_dice


def line(rows=slice(19, 22), columns=slice(5, 55)):
    mask = np.zeros((40, 60), bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_authors_formula(seed):
    truth, prediction = clouds(seed)
    own, other = skeletonize(truth), skeletonize(prediction)
    precision = (other & truth).sum() / other.sum()
    sensitivity = (own & prediction).sum() / own.sum()
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert cl_dice(truth, prediction) == pytest.approx(expected)


def test_a_gap_costs_its_length_and_thickness_costs_nothing():
    assert cl_dice(line(), line()) == 1
    assert cl_dice(line(), line(slice(17, 24))) == pytest.approx(1, abs=0.05)
    gap = line()
    gap[:, 25:35] = False
    assert cl_dice(line(), gap) == pytest.approx(2 * 0.8 / 1.8, abs=0.03)


def test_empty_masks():
    empty = np.zeros((40, 60), bool)
    assert math.isnan(cl_dice(empty, empty))
    assert cl_dice(line(), empty) == cl_dice(empty, line()) == 0
    assert cl_dice(line(), line(slice(30, 33))) == 0
