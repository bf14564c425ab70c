"""Labels beyond the most probable class."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import softmax

from unetexp.component import decode
from unetexp.errors import ConfigError, UserError
from unetexp.postprocessing.labels import labels_of, shares_of, thresholded
from unetexp.postprocessing.settings import Postprocessing
from unetexp.postprocessing.uncertainty import entropy_of

NAMES = ("back", "cell", "wall")


@pytest.fixture
def shares():
    logits = np.random.default_rng(0).normal(size=(3, 20, 30)).astype(np.float32)
    return shares_of(logits)


def test_without_settings_the_most_probable_class_has_the_pixel(shares):
    assert (labels_of(shares, Postprocessing(), NAMES) == shares.argmax(axis=0)).all()


def test_shares_are_the_softmax_of_scaled_logits():
    logits = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)
    assert np.allclose(shares_of(logits, 2.0), softmax(logits / 2.0, axis=0), atol=1e-6)


@pytest.mark.parametrize("limit", [0.2, 0.5, 0.8])
def test_of_two_classes_a_threshold_is_the_usual_one(shares, limit):
    two = shares[:2] / shares[:2].sum(axis=0)
    assert (thresholded(two, {1: limit}) == (two[1] >= limit)).all()


def test_a_class_below_its_threshold_has_no_pixel(shares):
    labels = labels_of(shares, Postprocessing(thresholds={"wall": 0.6}), NAMES)
    assert ((labels == 2) == (shares[2] >= np.float32(0.6))).all()
    rest = labels != 2
    assert (labels[rest] == shares[:2].argmax(axis=0)[rest]).all()


def test_of_several_the_one_that_exceeds_its_own_the_most_has_the_pixel():
    shares = np.array([[[0.1]], [[0.5]], [[0.4]]], np.float32)
    assert thresholded(shares, {1: 0.4, 2: 0.2})[0, 0] == 2


def test_small_areas_become_the_next_class(shares):
    settings = Postprocessing(minimum_px={"cell": 5})
    labels = labels_of(shares, settings, NAMES)
    usual = shares.argmax(axis=0)
    areas, _ = ndimage.label(usual == 1, structure=np.ones((3, 3)))
    small = np.isin(areas, [n for n in range(1, areas.max() + 1) if (areas == n).sum() < 5])
    assert small.any()
    assert (labels[small] == np.where(shares[0] >= shares[2], 0, 2)[small]).all()
    assert (labels[~small] == usual[~small]).all()


def test_what_a_small_area_becomes_has_reached_its_threshold():
    """The speck's second class is `wall`, which needs more."""
    shares = np.full((3, 5, 5), [[[0.8]], [[0.1]], [[0.1]]], np.float32)
    shares[:, 2, 2] = 0.1, 0.5, 0.4
    settings = Postprocessing(thresholds={"wall": 0.6}, minimum_px={"cell": 4})
    assert (labels_of(shares, settings, NAMES) == 0).all()


def test_a_class_that_there_is_not_is_named(shares):
    with pytest.raises(UserError, match=r"nosuch.*back, cell, wall"):
        labels_of(shares, Postprocessing(thresholds={"nosuch": 0.3}), NAMES)


def test_one_class_for_sure_has_no_uncertainty():
    sure = np.zeros((3, 2, 2), np.float32)
    sure[1] = 1
    assert (entropy_of(sure) == 0).all() and not np.signbit(entropy_of(sure)).any()
    assert np.allclose(entropy_of(np.full((3, 2, 2), 1 / 3, np.float32)), 1)


@pytest.mark.parametrize(
    "tree", [{"temperature": 0}, {"thresholds": {"cell": 1.5}}, {"minimum_px": {"cell": 1}}]
)
def test_values_that_mean_nothing_are_refused(tree):
    with pytest.raises(ConfigError):
        decode(Postprocessing, tree)
