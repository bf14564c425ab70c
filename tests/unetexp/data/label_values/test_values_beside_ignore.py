"""Values that may not be class numbers, where data.ignore makes some of them void."""

import numpy as np
import pytest

from tests.support.changed_masks import map_masks, opened, refusal, suggested
from tests.support.data_folders import write_folder_dataset

SPLITS = {"train": 3, "val": 2}


def dataset(place, classes=3, **options):
    return write_folder_dataset(place, SPLITS, classes=classes, **options)


def paste(message, which):
    """The fields of the settings of the message, `which` of those that name a label map."""
    fields = suggested(message)
    maps = [number for number, each in enumerate(fields) if "label_map" in each]
    start = maps[which]
    end = maps[which + 1] if which + 1 < len(maps) else len(fields)
    return {key: value for each in fields[start:end] for key, value in each.items()}


@pytest.mark.parametrize("ignore", [255, [255, 9]])
def test_gaps_are_refused_and_the_ignored_value_stays_void(tmp_path, ignore):
    root = dataset(tmp_path / "data", void=0.1)
    codes = np.zeros(256, np.uint8)
    codes[[0, 1, 2, 255]] = 0, 7, 40, 255
    before = map_masks(root, lambda mask: codes[mask])
    message = refusal(root, ignore=ignore)
    assert "41 classes" in message
    fields = paste(message, 0)
    assert fields == {"label_map": {0: 0, 7: 1, 40: 2}, "ignore": ignore}
    data = opened(root, **fields)
    for name, split in data.splits.items():
        for sample in split:
            np.testing.assert_array_equal(sample.mask, before[name, sample.name])


def test_the_ignored_value_leaves_a_gap(tmp_path):
    root = dataset(tmp_path / "data")
    map_masks(root, lambda mask: np.array([0, 7, 40], np.uint8)[mask])
    message = refusal(root, ignore=7)
    assert paste(message, 0) == {"label_map": {0: 0, 40: 1}, "ignore": 7}
    assert opened(root, **paste(message, 0)).num_classes == 2


def test_numbers_of_objects_are_refused(tmp_path):
    root = dataset(tmp_path / "data")
    counts = iter((20, 7, 31, 12, 3))

    def numbered(mask):
        found = np.zeros(mask.shape, np.uint8)
        for number in range(next(counts)):
            row, column = divmod(number, 8)
            found[4 * row : 4 * row + 3, 4 * column : 4 * column + 3] = number + 1
        found[-1] = 255
        return found

    map_masks(root, numbered)
    fields = paste(refusal(root, ignore=255), 0)
    assert fields == {"label_map": {0: 0, "nonzero": 1}, "ignore": 255}
    data = opened(root, **fields)
    assert data.num_classes == 2 and data["train"].void_pixels > 0
    fields = paste(refusal(root, ignore=[0, 255]), 0)  # 0 is needed as the background
    assert opened(root, **fields).num_classes == 2


def test_masks_of_two_scales_are_refused(tmp_path):
    root = dataset(tmp_path / "data", 2)
    scales = iter((1, 255, 1, 255, 1))
    before = map_masks(root, lambda mask: mask * np.uint8(next(scales)))
    message = refusal(root, ignore=255)
    data = opened(root, **paste(message, 0))
    for name, split in data.splits.items():
        for sample in split:
            np.testing.assert_array_equal(sample.mask, before[name, sample.name])
    assert opened(root, **paste(message, 1))["train"].void_pixels > 0


def test_0_and_255_without_255_say_how_to_have_it_back(tmp_path):
    root = dataset(tmp_path / "data", 2)
    map_masks(root, lambda mask: mask * np.uint8(255))
    (fields,) = suggested(refusal(root, ignore=255))
    assert opened(root, **fields).num_classes == 2


class TestMixedScales:
    def test_one_mask_with_all_three_values_does_not_make_255_void(self, tmp_path):
        root = write_folder_dataset(tmp_path / "data", {"train": 8, "val": 4}, classes=2)
        numbers = iter(range(12))

        def scaled(mask):
            number = next(numbers)
            found = mask * np.uint8(255 if number % 2 else 1)
            if number == 4:
                found[:, :2] = 255
            return found

        map_masks(root, scaled)
        as_class, as_void = suggested(refusal(root))
        assert as_class == {"label_map": {0: 0, 1: 1, 255: 1}}
        assert opened(root, **as_class)["train"].void_pixels == 0
        assert opened(root, **as_void)["train"].void_pixels > 0

    def test_void_that_is_as_common_beside_the_foreground_is_void(self, tmp_path):
        root = write_folder_dataset(tmp_path / "data", {"train": 6, "val": 3}, classes=2)
        numbers = iter(range(9))

        def some(mask):
            number = next(numbers)
            found = mask * np.uint8(number % 3 > 0)  # every third mask without foreground
            if number % 2 == 0:
                found[:, -2:] = 255
            return found

        map_masks(root, some)
        assert opened(root)["train"].void_pixels > 0
