"""Masks that may hold numbers of objects instead of classes: few of them, and with gaps."""

import numpy as np
import pytest
from PIL import Image

from tests.support.changed_masks import assert_masks, map_masks, opened, refusal, said, suggested
from tests.support.data_folders import write_folder_dataset

OBJECTS = {"label_map": {0: 0, "nonzero": 1}}


@pytest.fixture
def root(tmp_path):
    return write_folder_dataset(tmp_path / "data", {"train": 6, "val": 3}, classes=3)


def write(root, numbers_of, dtype):
    """Masks with a square for each number that `numbers_of` gives for the mask's place."""
    places = iter(range(9))

    def change(mask):
        found = np.zeros(mask.shape, dtype)
        for place, number in enumerate(numbers_of(next(places))):
            row, column = divmod(place, 6)
            found[8 * row + 1 : 8 * row + 6, 8 * column + 1 : 8 * column + 6] = number
        return found

    map_masks(root, change)


def assert_one_class(root, data):
    assert data.num_classes == 2
    for name, split in data.splits.items():
        for sample in split:
            stored = np.asarray(Image.open(root / name / f"masks/{sample.name}.png"))
            np.testing.assert_array_equal(sample.mask, stored > 0)


def drawn(place):
    """Numbers with gaps, others in each mask."""
    return np.random.default_rng(place).choice(np.arange(3, 90), 2 + place % 4, replace=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_with_gaps_are_offered_as_objects(root, dtype):
    write(root, drawn, dtype)
    message = refusal(root)
    assert suggested(message)[0] == OBJECTS
    assert_one_class(root, opened(root, **OBJECTS))


def test_few_objects_of_16_bits_are_refused_with_both_readings(root):
    write(root, lambda place: range(1, 2 + place % 4), np.uint16)
    objects, classes = suggested(refusal(root))
    assert objects == OBJECTS
    assert_one_class(root, opened(root, **objects))
    assert opened(root, **classes).num_classes == 5


def test_few_numbers_of_8_bits_are_classes(root):
    write(root, lambda place: range(1, 2 + place % 4), np.uint8)
    assert opened(root).num_classes == 5


@pytest.mark.parametrize("numbers", [lambda p: range(1, 5), lambda p: range(1, 2 + p % 2)])
def test_values_of_16_bits_that_may_be_classes_are_read_with_a_note(root, numbers):
    write(root, numbers, np.uint16)
    before = {
        (name, path.stem): np.asarray(Image.open(path))
        for name in ("train", "val")
        for path in (root / name / "masks").iterdir()
    }
    data = opened(root)
    assert_masks(data, before)
    assert suggested(said(data)) == [OBJECTS]
    assert_one_class(root, opened(root, **OBJECTS))
    (root / "classes.txt").write_text("\n".join(map(str, range(data.num_classes))))
    assert "objects" not in said(opened(root))


def test_classes_in_pieces_are_no_objects(root):
    pieces = np.array([1, 2, 3, 1, 2, 3])
    write(root, lambda place: pieces[: 4 + place % 3], np.uint16)
    assert opened(root).num_classes == 4
