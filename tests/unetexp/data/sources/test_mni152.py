"""The embedded brain slices: classes, blocks, gaps."""

import warnings

import numpy as np
import pytest
from nilearn import datasets

from unetexp.data import Mni152, open_dataset


@pytest.fixture(scope="module")
def data():
    return open_dataset(Mni152())


def heights(split):
    return [int(name.removeprefix("axial_")) for name in split.names]


def test_splits_are_contiguous_blocks_with_gaps_of_three_slices(data):
    blocks = {name: heights(split) for name, split in data.splits.items()}
    for block in blocks.values():
        assert block == list(range(block[0], block[0] + len(block)))
    assert blocks["val"][0] - blocks["train"][-1] == 4
    assert blocks["test"][0] - blocks["val"][-1] == 4
    assert sum(len(block) for block in blocks.values()) + 6 == 137


def test_the_classes_have_the_known_balance(data):
    assert data.class_names == ("background", "csf_other", "grey_matter", "white_matter")
    pixels = sum(split.class_pixels for split in data.splits.values())
    np.testing.assert_allclose(pixels / pixels.sum(), [0.7, 0.025, 0.175, 0.1], atol=0.02)
    assert sum(split.void_pixels for split in data.splits.values()) == 0


@pytest.mark.parametrize("downsample", [1, 2, 3])
def test_a_pixel_is_the_mean_of_the_templates_voxels(downsample):
    split = open_dataset(Mni152(downsample=downsample))["train"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        template = datasets.load_mni152_template(resolution=1).get_fdata()
    index, size = 50, downsample
    slice_ = template[:, :, heights(split)[index]]
    x, y = 40, 30  # pixels from the left and from the back of the head
    expected = slice_[x * size : (x + 1) * size, y * size : (y + 1) * size].mean() * 255
    image = split[index].image[0]
    assert image.shape == (233 // size, 197 // size)
    assert float(image[image.shape[0] - 1 - y, x]) == pytest.approx(expected, abs=0.51)


def test_labels_follow_the_brain(data):
    for sample in data["val"]:
        outside = sample.image[0] == 0
        assert (sample.mask[outside] == 0).all()
