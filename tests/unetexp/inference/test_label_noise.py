"""Masks that a model contradicts stand out in the ranking."""

import numpy as np
import pytest

from unetexp.inference.label_noise import Doubt, doubt_of, suspicious_from


def square(top, left, side=20, size=64):
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def sure_of(mask, certainty=0.95):
    """Probabilities (2, H, W) of a model that sees `mask`."""
    return np.where(np.stack([mask == 0, mask == 1]), certainty, 1 - certainty).astype(np.float32)


@pytest.mark.parametrize(
    "wrong",
    [square(30, 30), square(10, 10, side=1) * 0, square(40, 5)],
    ids=["shifted", "dropped", "swapped"],
)
def test_a_wrong_mask_is_doubted_more_than_the_right_one(wrong):
    right = square(20, 20)

    score, regions = doubt_of(sure_of(right), wrong)
    least, none = doubt_of(sure_of(right), right)

    assert score > least + 0.2
    assert none == ()
    assert regions, "where the model is sure of another class"


def test_regions_lie_where_mask_and_prediction_differ():
    _, ((top, left, bottom, right),) = doubt_of(sure_of(square(20, 20)), square(20, 20) * 0)

    assert 18 <= top <= 23 and 18 <= left <= 23 and 37 <= bottom <= 42 and 37 <= right <= 42


def test_void_pixels_are_not_doubted():
    mask = square(20, 20)
    void = np.where(mask == 1, 255, 0).astype(np.uint8)

    assert doubt_of(sure_of(mask), void)[1] == ()


def test_an_image_whose_score_stands_out_is_suspected():
    ranked = [Doubt(str(i), "val", s, ()) for i, s in enumerate((0.8, 0.12, 0.11, 0.1, 0.1))]

    assert 0.12 < suspicious_from(ranked) < 0.8
