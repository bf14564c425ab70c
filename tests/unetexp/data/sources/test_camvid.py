"""CamVid in SegNet's form and in its own."""

import numpy as np
import pytest
from PIL import Image

from tests.support.data_sources import CAMVID_COLOURS, write_camvid_colours, write_camvid_numbers
from unetexp.data import Camvid, open_dataset
from unetexp.errors import DataError


def opened(root, **fields):
    return open_dataset(Camvid(root=str(root), **fields))


def test_segnets_form_has_11_classes_and_void(tmp_path):
    root = write_camvid_numbers(tmp_path)
    assert Camvid.looks_like(root)
    data = opened(root)
    assert data.num_classes == 11
    assert (data.class_names[0], data.class_names[10]) == ("Sky", "Bicyclist")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 3,
        "val": 2,
        "test": 2,
    }
    stored = np.asarray(Image.open(root / "valannot/0001TP_val001.png"))
    np.testing.assert_array_equal(data["val"][1].mask, np.where(stored == 11, 255, stored))


@pytest.mark.parametrize("table", ["label_colors.txt", "class_dict.csv"])
def test_colours_are_read_by_their_table(tmp_path, table):
    root = write_camvid_colours(tmp_path, table=table)
    assert Camvid.looks_like(root)
    data = opened(root)
    names = [name for name in CAMVID_COLOURS if name != "Void"]
    assert data.class_names == tuple(names)
    stored = np.asarray(Image.open(root / "val_labels/0006R0_val001_L.png"))
    expected = np.full(stored.shape[:2], 255)
    for number, name in enumerate(names):
        expected[(stored == CAMVID_COLOURS[name]).all(axis=2)] = number
    np.testing.assert_array_equal(data["val"][1].mask, expected)


def test_the_32_classes_are_merged_to_11_where_asked(tmp_path):
    root = write_camvid_colours(tmp_path)
    data = opened(root, classes=11)
    assert data.num_classes == 11
    stored = np.asarray(Image.open(root / "val_labels/0006R0_val001_L.png"))
    labels = data["val"][1].mask.numpy()
    for name, merged in (("SUVPickupTruck", "Car"), ("Car", "Car"), ("Animal", "Pedestrian")):
        there = (stored == CAMVID_COLOURS[name]).all(axis=2)
        assert set(labels[there].tolist()) == {data.class_names.index(merged)}


def test_frames_without_splits_are_drawn_with_each_drive_as_a_group(tmp_path):
    root = write_camvid_colours(tmp_path)
    for split in ("train", "val"):
        moves = {split: "701_StillsRaw_full", f"{split}_labels": "LabeledApproved_full"}
        for old, new in moves.items():
            (root / new).mkdir(exist_ok=True)
            for path in (root / old).iterdir():
                path.rename(root / new / path.name)
            (root / old).rmdir()
    listing = Camvid(root=str(root)).listing()
    assert (len(listing.unsplit), {s.group for s in listing.unsplit}) == (5, {"0006R0"})


def test_a_colour_that_the_table_lacks_is_named(tmp_path):
    root = write_camvid_colours(tmp_path)
    path = root / "train_labels/0006R0_train001_L.png"
    stored = np.array(Image.open(path))
    stored[0, :3] = (1, 2, 3)
    Image.fromarray(stored).save(path)
    with pytest.raises(DataError, match=r"0.39 % of the pixels .*label_colors.txt .*\(1, 2, 3\)"):
        opened(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64 128 Animal\n", "line 1 is '64 128 Animal'"),
        ("64 128 64 Animal\n64 128 64 Car\n", "twice"),
        ("64 128 640 Animal\n", "colours go from 0 to 255"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, text, message):
    root = write_camvid_colours(tmp_path)
    (root / "label_colors.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        opened(root)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no CamVid"):
        opened(tmp_path)
    root = write_camvid_colours(tmp_path / "a")
    (root / "label_colors.txt").unlink()
    with pytest.raises(DataError, match=r"label_colors.txt or class_dict.csv is missing"):
        opened(root)
    root = write_camvid_numbers(tmp_path / "b")
    with pytest.raises(DataError, match="needs the original colour masks"):
        opened(root, classes=32)
    (root / "trainannot/0001TP_train001.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 3 images .* have no mask"):
        opened(root)


def test_numbers_beyond_void_are_refused(tmp_path):
    root = write_camvid_numbers(tmp_path)
    Image.fromarray(np.full((24, 32), 12, np.uint8)).save(root / "trainannot/0001TP_train001.png")
    with pytest.raises(DataError, match="the mask holds 12"):
        opened(root)
