"""Smoothed masks of thin and small objects, in which few pixels keep the highest value."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.support.changed_masks import map_masks, opened, refusal, suggested
from tests.support.data_folders import write_folder_dataset


@pytest.fixture
def root(tmp_path):
    return write_folder_dataset(tmp_path / "data", {"train": 3, "val": 2}, size=(64, 64))


def vessels(number):
    """Lines of a few pixels."""
    found = np.zeros((64, 64), np.uint8)
    found[10 + number : 13 + number, 5:60] = 1
    found[:, 30 + number : 32 + number] = 1
    found[np.arange(40), np.arange(40)] = 1
    return found


def spots(number):
    found = np.zeros((64, 64), np.uint8)
    for row, column in np.random.default_rng(number).integers(2, 60, (12, 2)):
        found[row : row + 3, column : column + 3] = 1
    return found


def smooth(mask):
    return np.clip(ndimage.gaussian_filter(mask * 255.0, 0.9), 0, 255).astype(np.uint8)


def resize(mask):
    image = Image.fromarray(mask * np.uint8(255)).resize((112, 112), Image.Resampling.BICUBIC)
    return np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("drawn", [vessels, spots])
@pytest.mark.parametrize("soften", [smooth, resize])
@pytest.mark.parametrize("named", [False, True])
def test_halfway_is_offered_first(root, drawn, soften, named):
    numbers = iter(range(5))
    map_masks(root, lambda mask: soften(drawn(next(numbers))))
    if named:
        (root / "classes.txt").write_text("background\nobject\n")
    data = opened(root, **suggested(refusal(root))[0])
    for name, split in data.splits.items():
        for sample in split:
            stored = np.asarray(Image.open(root / name / f"masks/{sample.name}.png"))
            np.testing.assert_array_equal(sample.mask, stored > 127)


def test_of_low_values_half_of_the_highest_is_offered(root):
    numbers = iter(range(5))
    map_masks(root, lambda mask: smooth(vessels(next(numbers))) // 3)
    assert suggested(refusal(root))[0] == {"label_map": {"0..41": 0, "42..255": 1}}


def test_values_without_a_gap_are_refused_too(root):
    ramp = np.zeros((64, 64), np.uint8)
    ramp[:4] = np.arange(256).reshape(4, 64)
    numbers = iter(range(5))
    map_masks(root, lambda mask: np.roll(ramp, 8 * next(numbers), axis=0))
    assert suggested(refusal(root))[0] == {"label_map": {"0..127": 0, "128..255": 1}}


def test_thin_classes_with_gaps_are_not_smoothed(root):
    """Lines of one value each, apart from each other."""
    numbers = iter(range(5))

    def lines(mask):
        found = np.zeros((64, 64), np.uint8)
        first = next(numbers)
        for place in range(12):
            found[5 * place + first] = 10 * place + 10
        return found

    map_masks(root, lines)
    (numbered,) = suggested(refusal(root))
    assert set(numbered["label_map"].values()) == set(range(13))
