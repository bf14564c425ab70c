"""Pascal VOC in its own form, and without a network."""

import numpy as np
import pytest
from PIL import Image

from tests.support.data_sources import write_voc
from unetexp.data import Voc2012, open_dataset
from unetexp.data.sources import voc2012
from unetexp.errors import DataError


def test_official_lists_and_palette_masks_are_read(tmp_path):
    base = write_voc(tmp_path)
    data = open_dataset(Voc2012(root=str(base)))
    assert (data.num_classes, data.class_names[:2], data.class_names[-1]) == (
        21,
        ("background", "aeroplane"),
        "tvmonitor",
    )
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "val": 2}
    stored = np.asarray(Image.open(base / "SegmentationClass/2007_val_0001.png"))
    assert 255 in stored
    np.testing.assert_array_equal(data["val"][1].mask, stored)
    assert data.split_record["method"] == "official lists"


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_its_folder_is_found_from_above(tmp_path, place):
    write_voc(tmp_path)
    assert Voc2012.looks_like(tmp_path / place)
    assert len(Voc2012(root=str(tmp_path / place)).listing().splits["train"]) == 3


def test_a_test_split_is_drawn_from_train_where_it_is_asked_for(tmp_path):
    data = open_dataset(Voc2012(root=str(write_voc(tmp_path)), test_fraction=0.3))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 2,
        "val": 2,
        "test": 1,
    }
    assert any("no test split: drawn from the train split" in note for note in data.notes)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("ImageSets/Segmentation/train.txt", "train.txt: this list is missing"),
        ("SegmentationClass/2007_train_0001.png", "train.txt lists images of which 1 files"),
        ("JPEGImages/2007_val_0000.jpg", "val.txt lists images of which 1 files"),
    ],
)
def test_what_is_missing_is_named(tmp_path, missing, message):
    base = write_voc(tmp_path)
    (base / missing).unlink()
    with pytest.raises(DataError, match=message):
        open_dataset(Voc2012(root=str(base)))


def test_a_folder_that_is_no_voc_is_refused(tmp_path):
    assert not Voc2012.looks_like(tmp_path)
    with pytest.raises(DataError, match="there is no VOC data set"):
        open_dataset(Voc2012(root=str(tmp_path)))


def test_without_a_network_it_says_what_to_fetch_and_where_to(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path))
    monkeypatch.setattr(voc2012, "SITE", "http://127.0.0.1:9/VOCtrainval.tar")
    monkeypatch.setattr(voc2012, "PATIENCE_S", 1.0)
    with pytest.raises(DataError, match="cannot be downloaded") as error:
        open_dataset(Voc2012())
    assert str(tmp_path / "downloads/VOCdevkit") in str(error.value)
    assert "data.root=FOLDER" in str(error.value)


def test_what_was_unpacked_into_the_cache_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path))
    write_voc(tmp_path / "downloads")
    assert len(open_dataset(Voc2012())["val"]) == 2
