"""Masks of colours beside names without colours, and in the palette of Pascal VOC."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.support.changed_masks import (
    assert_masks,
    map_masks,
    opened,
    refusal,
    said,
    suggested,
)
from tests.support.data_folders import write_folder_dataset
from unetexp.component import decode
from unetexp.data import DataSource, Folder
from unetexp.data.checks.checked import check_source
from unetexp.data.label_values.voc_palette import BORDER, voc_colours
from unetexp.data.layouts.paragraph import paragraph
from unetexp.training.config import parse_assignments

SPLITS = {"train": 3, "val": 2}
PRIMARY = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
VOC = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [224, 224, 192]], np.uint8)
NAMES = ["ground", "road", "tree", "water"]


def coloured(root, colours, classes, names=None):
    write_folder_dataset(root, SPLITS, classes=classes, class_names=names)
    return map_masks(root, lambda mask: colours[mask])


class TestNamesWithoutColours:
    def test_both_orders_are_shown_and_each_setting_reads_the_masks(self, tmp_path):
        before = coloured(tmp_path, PRIMARY, 4, NAMES)

        message = refusal(tmp_path)
        by_number, red_first = suggested(message)

        assert "classes.txt" in message and "which" in message
        data = opened(tmp_path, **red_first)
        assert data.class_names == tuple(NAMES)
        assert_masks(data, before)
        number = np.array([0, 3, 2, 1])  # #000000 #0000ff #00ff00 #ff0000
        assert_masks(
            opened(tmp_path, **by_number), {key: number[mask] for key, mask in before.items()}
        )

    def test_the_palette_of_voc_is_one_of_the_orders(self, tmp_path):
        before = coloured(tmp_path, VOC, 4, NAMES)

        readings = suggested(refusal(tmp_path))

        assert_masks(opened(tmp_path, **readings[1]), before)

    def test_colours_after_the_names_answer_the_question(self, tmp_path):
        before = coloured(tmp_path, PRIMARY, 4, NAMES)
        lines = [
            f"{name} #{bytes(colour).hex()}" for name, colour in zip(NAMES, PRIMARY, strict=True)
        ]
        (tmp_path / "classes.txt").write_text("\n".join(lines))
        assert_masks(opened(tmp_path), before)

    @pytest.mark.parametrize("background", ["background", "_background_", "Background", "bg"])
    def test_black_is_what_is_called_background_and_one_other_colour_is_the_other(
        self, tmp_path, background
    ):
        before = coloured(tmp_path, PRIMARY, 2, [background, "road"])
        data = opened(tmp_path)
        assert_masks(data, before)
        assert data.class_names == (background, "road")

    def test_two_colours_without_a_background_are_asked_for(self, tmp_path):
        before = coloured(tmp_path, PRIMARY, 2, ["road", "grass"])
        first, second = suggested(refusal(tmp_path))
        assert_masks(opened(tmp_path, **first), before)
        assert_masks(opened(tmp_path, **second), {k: 1 - mask for k, mask in before.items()})

    def test_without_names_the_order_stays_that_of_the_numbers(self, tmp_path):
        coloured(tmp_path, PRIMARY, 4)
        assert opened(tmp_path).class_names == ("000000", "0000ff", "00ff00", "ff0000")


class TestVocsPalette:
    def test_it_is_the_one_that_vocs_development_kit_computes(self):
        """VOClabelcolormap.m, by its formula."""
        known = {0: 0, 1: 0x800000, 2: 0x008000, 3: 0x808000, 4: 0x000080, 15: 0xC08080}
        known |= {20: 0x004080, 21: 0x804080, 255: BORDER}
        palette = voc_colours()
        assert {index: palette[index] for index in known} == known
        assert len(set(palette)) == 256

    def test_its_border_is_void_and_this_is_said(self, tmp_path):
        before = coloured(tmp_path, VOC, 5)

        data = opened(tmp_path)

        order = np.array([0, 2, 1, 3, 255])  # #000000 #008000 #800000 #808000
        assert_masks(data, {key: order[mask] for key, mask in before.items()})
        assert data.class_names == ("000000", "008000", "800000", "808000")
        source = decode(DataSource, {"kind": "folder", "root": str(tmp_path)})
        assert re.search(r"#e0e0c0 \(.*Pascal VOC.*\) is void: \d", paragraph(source, data))
        assert "data.label_map" in said(data)

    def test_names_are_those_of_the_other_colours(self, tmp_path):
        before = coloured(tmp_path, VOC, 5, NAMES)
        readings = suggested(refusal(tmp_path))
        data = opened(tmp_path, **readings[1])
        assert_masks(data, {key: np.where(m == 4, 255, m) for key, m in before.items()})

    def test_a_table_of_the_other_colours_is_enough(self, tmp_path):
        before = coloured(tmp_path, VOC, 5)
        lines = [f"{n} #{bytes(colour).hex()}" for n, colour in zip(NAMES, VOC[:4], strict=True)]
        (tmp_path / "classes.txt").write_text("\n".join(lines))
        data = opened(tmp_path)
        assert_masks(data, {key: np.where(m == 4, 255, m) for key, m in before.items()})

    def test_a_setting_goes_before_it(self, tmp_path):
        coloured(tmp_path, VOC, 5)
        assert opened(tmp_path, ignore="#808000").class_names[-1] == "e0e0c0"
        pasted = parse_assignments(["data.label_map={#000000: 0, #e0e0c0: 1, nonzero: 2}"])
        data = opened(tmp_path, label_map=pasted["data.label_map"])
        assert data["train"].void_pixels == 0

    def test_among_colours_of_another_palette_it_is_a_class(self, tmp_path):
        coloured(tmp_path, np.array([[0, 0, 0], [224, 224, 192], [255, 0, 0]], np.uint8), 3)
        assert opened(tmp_path).class_names == ("000000", "e0e0c0", "ff0000")


def test_the_check_asks_the_same(tmp_path):
    coloured(tmp_path, PRIMARY, 4, NAMES)
    (finding,) = [
        f for f in check_source(Folder(root=str(tmp_path))).findings if f.code == "wrong-labels"
    ]
    assert finding.mend.count("--set 'data.label_map=") == 2


def test_a_palette_image_keeps_its_indices(tmp_path):
    write_folder_dataset(tmp_path, SPLITS, classes=4, class_names=NAMES)

    def palette(mask):
        image = Image.fromarray(mask, mode="P")
        image.putpalette(bytes(channel for c in voc_colours() for channel in c.to_bytes(3)))
        return image

    before = map_masks(tmp_path, palette)
    assert_masks(opened(tmp_path), before)
