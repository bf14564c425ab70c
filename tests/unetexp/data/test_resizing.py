"""The working size: its forms, images by area, masks without invented labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unetexp.component import decode
from unetexp.data import Folder, Mni152
from unetexp.data.resizing import (
    Scale,
    resized_image,
    resized_mask,
    working_size,
)
from unetexp.data.sources import DataSource
from unetexp.errors import ConfigError

sides = st.integers(1, 30)
sizes = st.tuples(sides, sides)


def resize_of(value):
    return Folder(root="/x", resize=value).resize


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (None, (3000, 4000)),
        (1000, (750, 1000)),
        (4000, (3000, 4000)),
        (9000, (3000, 4000)),
        ([512, 768], (512, 768)),
        ((5000, 10), (5000, 10)),
        ({"scale": 0.25}, (750, 1000)),
        ({"scale": 1}, (3000, 4000)),
        ({"scale": 1e-5}, (1, 1)),
        (Scale(scale=0.1), (300, 400)),
    ],
)
def test_the_working_size(given, size):
    assert working_size(resize_of(given), 3000, 4000) == size


@pytest.mark.parametrize(
    "given",
    [0, -3, True, "1024", 1.5, [1, 2, 3], [0, 5], {"scale": 2}, {"scale": 0}, {"x": 1}, 1e9],
)
def test_what_is_no_working_size_gets_the_allowed_forms(given):
    with pytest.raises(ConfigError, match=r"--set data.resize=1024") as error:
        decode(DataSource, {"kind": "folder", "root": "/x", "resize": given}, "data")
    assert "data.resize" in str(error.value)


@pytest.mark.parametrize("given", [640, [40, 60], {"scale": 0.5}])
def test_it_is_recorded_in_the_form_it_was_given(given):
    source = Folder(root="/x", resize=given)
    assert source.tree()["resize"] == given
    assert decode(DataSource, source.tree()) == source
    assert Mni152(resize=given).tree() == {"kind": "mni152", "downsample": 2, "resize": given}


def test_where_it_is_not_set_records_are_as_before():
    assert "resize" not in Folder(root="/x").tree()
    assert Mni152().tree() == {"kind": "mni152", "downsample": 2}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_images_are_means_of_areas(kind):
    image = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (5, 40, 60)).astype(kind)
    means = image.reshape(5, 10, 4, 15, 4).mean(axis=(2, 4))
    found = resized_image(image, (10, 15))
    assert found.dtype == kind
    assert np.abs(found - means).max() <= 0.51 + (kind is np.uint8) * 0.5


def test_images_that_grow_are_interpolated():
    ramp = np.array([[[0, 100]]], np.uint8)
    assert resized_image(ramp, (1, 4)).tolist() == [[[0, 25, 75, 100]]]


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, sizes, elements=st.sampled_from([0, 1, 2, 7, 255])), sizes)
def test_no_label_is_invented(mask, size):
    found = resized_mask(mask, size)
    assert found.shape == size and found.dtype == np.uint8
    assert set(np.unique(found)) <= set(np.unique(mask))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_image_and_mask_never_drift_apart(down, across, seed):
    """An image that is its own mask still is one, where cells are of one class."""
    mask = np.random.default_rng(seed).integers(0, 4, (6, 7)).astype(np.uint8)
    large = mask.repeat(down, axis=0).repeat(across, axis=1)
    assert (resized_mask(large, (6, 7)) == mask).all()
    assert (resized_image(large[np.newaxis], (6, 7))[0] == mask).all()


def test_thin_things_survive():
    mask = np.zeros((400, 400), np.uint8)
    mask[:, 101:104] = 1  # less than half of a cell of 8
    mask[200:203] = 2
    found = resized_mask(mask, (50, 50))
    assert (found[:, 12] == 1).sum() >= 49
    assert (found == 2).any(axis=0).sum() >= 49


def test_void_does_not_win_by_double_votes():
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :2] = 255
    mask[4:, :4] = 1
    assert resized_mask(mask, (2, 2)).tolist() == [[255, 0], [1, 0]]  # a tie: the rarer one
    mask[0, 0] = 0
    assert resized_mask(mask, (2, 2)).tolist() == [[0, 0], [1, 0]]


def test_a_tie_goes_to_the_rarer_label():
    mask = np.array([[1, 1, 2, 2, 0, 0, 0, 0, 2, 2]], np.uint8).repeat(4, axis=0)
    assert resized_mask(mask[:, :4], (1, 1)).tolist() == [[1]]  # of equally common ones the lower
    assert resized_mask(mask[:, :8], (1, 2))[0, 0] == 1
    wide = np.concatenate([mask[:, :4], mask[:, 8:], mask[:, 8:], mask[:, 4:8], mask[:, 4:8]], 1)
    assert resized_mask(wide[:, :16], (1, 4))[0, 0] == 1
