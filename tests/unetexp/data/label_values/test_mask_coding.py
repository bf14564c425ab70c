"""Masks of colours, of 16 bits, of lossy formats and of object numbers: read, or refused."""

import csv
import re

import numpy as np
import pytest
from PIL import Image, ImageFilter

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
from unetexp.data import DataSource
from unetexp.errors import ConfigError, DataError
from unetexp.training.config import parse_assignments

SPLITS = {"train": 3, "val": 2}
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255]], np.uint8)


def dataset(place, classes=3, **options):
    return write_folder_dataset(place, SPLITS, classes=classes, **options)


class TestColours:
    def test_a_few_colours_are_classes_black_first(self, tmp_path):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: COLOURS[mask])
        data = opened(root)
        order = np.array([0, 2, 1])  # #000000, #0080ff, #ff0000
        assert data.class_names == ("000000", "0080ff", "ff0000")
        assert_masks(data, {key: order[mask] for key, mask in before.items()})
        assert "0 #000000, 1 #0080ff, 2 #ff0000" in said(data)

    @pytest.mark.parametrize(
        "label_map",
        [
            {"#000000": 0, "#ff0000": 1, "#0080ff": 2},
            "{[0, 0, 0]: 0, [255, 0, 0]: 1, [0, 128, 255]: 2}",
            "0: 0, 255 0 0: 1, 0 128 255: 2",
            {"#000000": 0, "#ff0000": 1, "nonzero": 2},
        ],
    )
    def test_a_label_map_names_them(self, tmp_path, label_map):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: COLOURS[mask])
        assert_masks(opened(root, label_map=label_map), before)

    def test_unquoted_colours_can_be_set_on_the_command_line(self, tmp_path):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: COLOURS[mask])
        text = "data.label_map={#000000: 0, #ff0000: 1, #0080ff: 2}"
        assert_masks(opened(root, label_map=parse_assignments([text])["data.label_map"]), before)

    def test_one_can_be_void(self, tmp_path):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: COLOURS[mask])
        expected = {key: np.array([0, 1, 255])[mask] for key, mask in before.items()}
        value = parse_assignments(["data.ignore=#0080ff"])["data.ignore"]
        data = opened(root, ignore=value)
        assert_masks(data, expected)
        assert data.class_names == ("000000", "ff0000")

    @pytest.mark.parametrize("form", ["classes.txt", "class_dict.csv", "label_colors.txt"])
    def test_a_table_beside_the_data_names_them(self, tmp_path, form):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: COLOURS[mask])
        rows = [("road", COLOURS[0]), ("car", COLOURS[1]), ("sky", COLOURS[2])]
        rows.append(("Void", np.array([9, 9, 9])))
        if form == "classes.txt":
            lines = [f"{name} #{bytes(c.astype(np.uint8)).hex()}" for name, c in rows]
            (root / form).write_text("\n".join(lines))
        elif form == "label_colors.txt":
            lines = [f"{c[0]} {c[1]} {c[2]}\t\t{name}" for name, c in rows]
            (root / form).write_text("\n".join(lines))
        else:
            with (root / form).open("w", newline="") as file:
                csv.writer(file).writerows([["name", "r", "g", "b"], *([n, *c] for n, c in rows)])
        data = opened(root)
        assert data.class_names == ("road", "car", "sky")
        assert_masks(data, before)

    def test_a_colour_that_is_not_named_is_refused_with_its_mask(self, tmp_path):
        root = dataset(tmp_path / "data")
        map_masks(root, lambda mask: COLOURS[mask])
        message = refusal(root, label_map={"#000000": 0, "#ff0000": 1})
        assert "#0080ff" in message and "masks/000.png" in message
        assert opened(root, label_map={0: 0, "#ff0000": 1}, **suggested(message)[0])

    def test_smoothed_colours_are_refused_and_the_printed_map_reads_them(self, tmp_path):
        root = dataset(tmp_path / "data", size=(64, 64))

        def smooth(mask):
            return Image.fromarray(COLOURS[mask]).filter(ImageFilter.GaussianBlur(1))

        before = map_masks(root, smooth)
        fields = suggested(refusal(root))[0]
        data = opened(root, **fields)
        assert data.num_classes == 3
        assert re.search(r"changes [\d.]+ % of the pixels", said(data))
        order = {"#000000": 0, "#ff0000": 1, "#0080ff": 2}
        parts = [part.split(": ") for part in fields["label_map"].strip("{}").split(", ")]
        codes = {int(code): order[colour.strip('"')] for colour, code in parts}
        agree = [
            (np.vectorize(codes.get)(sample.mask.numpy()) == before[name, sample.name]).mean()
            for name, split in data.splits.items()
            for sample in split
        ]
        assert min(agree) > 0.9

    def test_palette_masks_keep_their_indices(self, tmp_path):
        root = dataset(tmp_path / "data")

        def palette(mask):
            image = Image.fromarray(mask, mode="P")
            image.putpalette(COLOURS.tobytes())
            return image

        before = map_masks(root, palette)
        data = opened(root)
        assert_masks(data, before)
        assert data.class_names == ("0", "1", "2")
        by_colour = {"#000000": 0, "#ff0000": 2, "#0080ff": 1}
        swapped = {key: np.array([0, 2, 1])[mask] for key, mask in before.items()}
        assert_masks(opened(root, label_map=by_colour), swapped)


class TestAClassThatValLacks:
    """The printed setting leaves it out, in the values that the masks hold."""

    @staticmethod
    def written(root, change):
        before = map_masks(root, lambda mask: mask)
        numbers = iter(range(5))
        map_masks(root, lambda m: change(np.where(m == 1, 0, m) if next(numbers) > 2 else m))
        return {
            (name, sample): np.array([0, 255, 1])[np.where(name == "val", mask * (mask != 1), mask)]
            for (name, sample), mask in before.items()
        }

    @pytest.mark.parametrize("table", [False, True])
    def test_of_colours(self, tmp_path, table):
        root = dataset(tmp_path / "data")
        colours = np.array([[0, 0, 0], [0, 128, 255], [255, 0, 0]], np.uint8)
        expected = self.written(root, lambda mask: colours[mask])
        names = ["ground #000000", "car #0080ff", "tree #ff0000"]
        if table:
            (root / "classes.txt").write_text("\n".join(names))
        message = refusal(root)
        assert ("classes.txt" in message) == table
        if table:
            (root / "classes.txt").write_text("\n".join(names[::2]))
        assert_masks(opened(root, **suggested(message)[0]), expected)

    def test_of_16_bits(self, tmp_path):
        root = dataset(tmp_path / "data")
        expected = self.written(root, lambda mask: mask.astype(np.uint16) * np.uint16(700))
        message = refusal(root, label_map={0: 0, 700: 1, 1400: 2})
        assert_masks(opened(root, **suggested(message)[0]), expected)

    def test_of_smoothed_colours(self, tmp_path):
        root = dataset(tmp_path / "data")
        colours = np.array([[0, 0, 0], [0, 128, 255], [255, 0, 0]], np.uint8)
        expected = self.written(root, lambda mask: colours[mask] // 2 + colours[mask] // 3)
        every = {"#000000": 0, "#0080ff": 1, "#ff0000": 2, 255: "void"}
        for path in root.glob("*/masks/*"):
            pixels = np.asarray(Image.open(path)).copy()
            pixels[:9, :9] += np.arange(81, dtype=np.uint8).reshape(9, 9, 1) % 70
            Image.fromarray(pixels).save(path)
        fields = suggested(refusal(root, label_map=every))[0]
        data = opened(root, **fields)
        assert data.num_classes == 2
        agree = [
            (sample.mask.numpy() == expected[name, sample.name]).mean()
            for name, split in data.splits.items()
            for sample in split
        ]
        assert min(agree) > 0.9


class TestLossyMasks:
    def test_jpeg_masks_of_0_and_255_are_split_halfway_and_the_share_is_said(self, tmp_path):
        root = dataset(tmp_path / "data", classes=2, size=(96, 96))
        before = map_masks(root, lambda mask: mask * np.uint8(255), ".jpg", quality=95)
        data = opened(root)
        stored = [np.asarray(Image.open(path)) for path in root.glob("*/masks/*.jpg")]
        moved = np.mean([((mask != 0) & (mask != 255)).mean() for mask in stored])
        share = re.search(r"changes ([\d.]+) % of the pixels", said(data))
        assert float(share[1]) == pytest.approx(100 * moved, abs=0.06)
        assert_masks(data, before)

    def test_beside_lossless_ones_of_0_and_1_they_are_refused_with_both_readings(self, tmp_path):
        root = dataset(tmp_path / "data", classes=2, size=(64, 64))
        before = map_masks(root, lambda mask: mask)
        for path in sorted(root.glob("*/masks/*.png"))[::2]:
            scaled = Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255))
            scaled.save(path.with_suffix(".jpg"), quality=95)
            path.unlink()
        message = refusal(root)
        assert ".jpg" in message and ".png" in message
        as_class, as_background = (opened(root, **fields) for fields in suggested(message))
        for name, split in as_class.splits.items():
            for sample, empty in zip(split, as_background[name], strict=True):
                expected = before[name, sample.name]
                assert (sample.mask.numpy() == expected).mean() > 0.97
                lossless = (root / name / f"masks/{sample.name}.png").exists()
                assert lossless == (not empty.mask.any())

    def test_jpeg_masks_of_class_numbers_are_refused(self, tmp_path):
        root = dataset(tmp_path / "data")
        map_masks(root, lambda mask: mask * np.uint8(60), ".jpg")
        message = refusal(root)
        assert "JPEG" in message and "data.label_map" in message

    def test_a_label_map_reads_them(self, tmp_path):
        root = dataset(tmp_path / "data", size=(96, 96))
        before = map_masks(root, lambda mask: mask * np.uint8(120), ".jpg", quality=95)
        data = opened(root, label_map={"0..60": 0, "61..180": 1, "181..255": 2})
        agree = [
            (sample.mask.numpy() == before[name, sample.name]).mean()
            for name, split in data.splits.items()
            for sample in split
        ]
        assert min(agree) > 0.97
        assert re.search(r"change [\d.]+ % of the pixels", said(data))


class TestObjectNumbers:
    @staticmethod
    def numbered(mask, count, dtype):
        """`count` squares, each with its own number."""
        found = np.zeros(mask.shape, dtype)
        for number in range(count):
            row, column = divmod(number, 8)
            found[4 * row : 4 * row + 3, 4 * column : 4 * column + 3] = number + 1
        return found

    def write(self, root, dtype, scale=1):
        counts = iter((20, 7, 31, 12, 3))
        return map_masks(root, lambda mask: self.numbered(mask, next(counts), dtype) * dtype(scale))

    @pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 1000), (np.uint8, 1)])
    def test_they_are_refused_with_both_readings(self, tmp_path, dtype, scale):
        root = dataset(tmp_path / "data")
        self.write(root, dtype, scale)
        objects, classes = suggested(refusal(root))
        assert objects == {"label_map": {0: 0, "nonzero": 1}}
        data = opened(root, **objects)
        assert data.num_classes == 2
        for name, split in data.splits.items():
            for sample in split:
                stored = np.asarray(Image.open(root / name / f"masks/{sample.name}.png"))
                np.testing.assert_array_equal(sample.mask, stored > 0)
        with pytest.raises(DataError, match="no mask of the val split"):  # 31 classes, as they are
            opened(root, **classes)

    def test_classes_in_some_of_the_masks_are_no_objects(self, tmp_path):
        root = dataset(tmp_path / "data")
        held = iter(([1, 4, 8], [2, 8, 3], [5, 6, 7, 4], [1, 2, 3, 4, 5, 6, 7, 8], [8]))

        def some(mask):
            return np.resize(np.array([0, *next(held)], np.uint8), mask.shape)

        map_masks(root, some)
        assert opened(root).num_classes == 9

    def test_16_bit_masks_of_classes_are_read_as_they_are(self, tmp_path):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: mask.astype(np.uint16))
        assert_masks(opened(root), before)

    def test_16_bit_masks_of_two_values_are_binary(self, tmp_path):
        root = dataset(tmp_path / "data", classes=2)
        before = map_masks(root, lambda mask: mask.astype(np.uint16) * np.uint16(65535))
        data = opened(root)
        assert_masks(data, before)
        assert "65535 is read as class 1" in said(data)

    def test_65535_beside_classes_is_offered_as_void(self, tmp_path):
        root = dataset(tmp_path / "data", void=0.1)
        wide = np.arange(256, dtype=np.uint16)
        wide[255] = 65535
        before = map_masks(root, lambda mask: wide[mask])
        objects, classes = suggested(refusal(root))
        data = opened(root, **classes)
        assert_masks(data, before)
        assert opened(root, **objects)["train"].void_pixels == data["train"].void_pixels


class TestIgnore:
    @pytest.mark.parametrize(
        ("ignore", "codes"),
        [
            (0, [255, 0, 1]),  # those above the lowest are the classes
            (2, [0, 1, 255]),
            ([2, 255], [0, 1, 255]),
            ("2..9", [0, 1, 255]),
        ],
    )
    def test_any_value_can_be_void(self, tmp_path, ignore, codes):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: mask)
        data = opened(root, ignore=ignore)
        assert_masks(data, {key: np.array(codes)[mask] for key, mask in before.items()})
        assert data["train"].void_pixels > 0

    def test_of_three_greys_two_are_left(self, tmp_path):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: np.array([0, 128, 255], np.uint8)[mask])
        expected = {key: np.array([0, 255, 1])[mask] for key, mask in before.items()}
        assert_masks(opened(root, ignore=128), expected)

    def test_it_goes_before_the_label_map_and_into_the_record(self, tmp_path):
        root = dataset(tmp_path / "data")
        before = map_masks(root, lambda mask: mask)
        fields = {"label_map": "nonzero -> 1", "ignore": 2}
        data = opened(root, **fields)
        assert_masks(data, {key: np.array([0, 1, 255])[mask] for key, mask in before.items()})
        assert data.fingerprint != opened(root, label_map="nonzero -> 1").fingerprint
        source = decode(DataSource, {"kind": "folder", "root": "x", **fields})
        assert source.tree()["label_map"] == "0: 0, nonzero: 1"
        assert decode(DataSource, source.tree()) == source

    @pytest.mark.parametrize("value", ["red", [], -1, "#12"])
    def test_what_names_no_value_is_a_config_error(self, value):
        with pytest.raises(ConfigError, match=r"data\.ignore"):
            decode(DataSource, {"kind": "folder", "root": "x", "ignore": value}, "data")
