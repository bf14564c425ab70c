"""Masks with palettes: numbers where the palettes agree, colours where they differ."""

import numpy as np
import pytest
from PIL import Image

from tests.support.changed_masks import assert_masks, map_masks, opened, refusal, said, suggested
from tests.support.data_folders import write_folder_dataset

COLOURS = np.array([[0, 0, 0], [200, 10, 10], [10, 200, 90]], np.uint8)
ORDER = np.array([0, 2, 1])  # #000000, #0ac85a, #c80a0a
BY_COLOUR = {"#000000": 0, "#c80a0a": 1, "#0ac85a": 2}


@pytest.fixture
def root(tmp_path):
    return write_folder_dataset(tmp_path / "data", {"train": 4, "val": 2}, classes=3)


def without_some(mask, number):
    """Every second mask lacks class 1, so that a writer gives its number to another."""
    return np.where(mask == 1, 0, mask) if number % 2 else mask


def lacking(root, write, ending):
    numbers, kept = iter(range(6)), {}

    def change(mask):
        left = without_some(mask, next(numbers))
        kept[len(kept)] = left
        return write(left)

    keys = list(map_masks(root, change, ending))
    return dict(zip(keys, kept.values(), strict=True))


def gif(mask):
    return Image.fromarray(COLOURS[mask])


def quantised(mask):
    return Image.fromarray(COLOURS[mask]).quantize(8)


@pytest.mark.parametrize(("write", "ending"), [(gif, ".gif"), (quantised, ".png")])
class TestPalettesInTheOrderOfEachFile:
    def test_are_read_by_colour(self, root, write, ending):
        before = lacking(root, write, ending)
        data = opened(root)
        assert_masks(data, {key: ORDER[mask] for key, mask in before.items()})
        assert data.class_names == ("000000", "0ac85a", "c80a0a")
        assert "palettes of the masks differ" in said(data)

    def test_by_a_map_of_colours(self, root, write, ending):
        before = lacking(root, write, ending)
        assert_masks(opened(root, label_map=BY_COLOUR), before)

    def test_names_without_colours_are_asked_for(self, root, write, ending):
        lacking(root, write, ending)
        (root / "classes.txt").write_text("ground\ncar\ntree\n")
        message = refusal(root)
        assert "palettes of the masks differ" in message
        for fields in suggested(message):
            assert opened(root, **fields).class_names == ("ground", "car", "tree")

    def test_a_map_of_indices_is_refused(self, root, write, ending):
        lacking(root, write, ending)
        message = refusal(root, label_map={0: 0, 1: 1, 2: 2})
        assert "palettes of the masks differ" in message


def indexed(mask, palette):
    image = Image.fromarray(mask, mode="P")
    image.putpalette(palette.tobytes())
    return image


def test_palettes_that_differ_in_unused_entries_alone_are_numbers(root):
    numbers = iter(range(6))
    unused = np.array([[9, 9, 9]], np.uint8)

    def change(mask):
        return indexed(mask, np.concatenate([COLOURS, unused * np.uint8(next(numbers))]))

    before = map_masks(root, change)
    assert_masks(opened(root), before)


def test_the_same_colour_at_two_indices_is_one_class(root):
    numbers = iter(range(6))

    def change(mask):
        if next(numbers) % 2:
            return indexed(np.where(mask == 0, 0, mask), COLOURS)
        moved = np.where(mask == 2, 3, mask).astype(np.uint8)
        return indexed(moved, COLOURS[[0, 1, 0, 2]])

    before = map_masks(root, change)
    assert_masks(opened(root, label_map=None), {key: ORDER[m] for key, m in before.items()})


def test_palette_masks_beside_colour_masks_are_colours(root):
    numbers = iter(range(6))

    def change(mask):
        return COLOURS[mask] if next(numbers) % 2 else indexed(mask, COLOURS)

    before = map_masks(root, change)
    assert_masks(opened(root), {key: ORDER[mask] for key, mask in before.items()})


def test_palettes_of_greys_that_are_the_indices_are_numbers(root):
    numbers = iter(range(6))
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], 3, axis=1)
    before = map_masks(root, lambda mask: indexed(mask, (greys, COLOURS)[next(numbers) % 2]))
    assert_masks(opened(root), before)
