"""What the paragraph about a set says of its folds and of its void label."""

import json

import pytest

from tests.support.data_folders import write_folder_dataset
from tests.support.data_sources import write_nifti
from unetexp.component import decode
from unetexp.data import DataSource, open_dataset
from unetexp.data.layouts.paragraph import paragraph


def said_of(root, **settings):
    source = decode(DataSource, {"kind": "folder", "root": str(root), **settings})
    return paragraph(source, open_dataset(source))


def test_folds_are_named_and_images_counted_once(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"": 12}, size=(32, 32))
    text = said_of(root, folds=3)
    assert "12 images with masks" in text
    assert (
        "3 folds, each validated on once (fold_0 4, fold_1 4, fold_2 4), drawn by seed 0." in text
    )
    assert "()" not in text


def test_images_for_testing_are_beside_the_folds(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"": 12}, size=(32, 32))
    text = said_of(root, folds=3, test_fraction=0.25)
    assert "12 images with masks" in text
    assert "(fold_0 3, fold_1 3, fold_2 3, test 3), drawn by seed 0 (25 % test)." in text


@pytest.mark.parametrize("folds", [None, 3])
def test_void_pixels_are_a_share_of_all_once(tmp_path, folds):
    root = write_folder_dataset(tmp_path / "data", {"": 12}, size=(32, 32), void=0.1)
    data = open_dataset(decode(DataSource, {"kind": "folder", "root": str(root)}))
    void = sum(split.void_pixels for split in data.splits.values())
    expected = f"255 is void: {100 * void / (12 * 32 * 32):.1f} % of the pixels."
    assert expected in said_of(root, folds=folds)


def test_the_void_label_of_volumes_is_the_one_in_their_files(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    names = {"background": 0, "lung": 1, "ignore": 2}
    (root / "dataset.json").write_text(json.dumps({"labels": names}))
    source = decode(DataSource, {"kind": "nifti", "root": str(root)})
    text = paragraph(source, open_dataset(source))
    assert "2 (in dataset.json) is void: " in text
