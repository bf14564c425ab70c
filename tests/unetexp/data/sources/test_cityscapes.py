"""Cityscapes: ids become classes."""

import numpy as np
import pytest
from PIL import Image

from tests.support.data_sources import write_cityscapes
from unetexp.data import Cityscapes, open_dataset
from unetexp.errors import DataError

# trainId of each label id, from the table in cityscapesscripts/helpers/labels.py
TRAIN_IDS = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12]
TRAIN_IDS += [13, 14, 15, 255, 255, 16, 17, 18]


def opened(root, **fields):
    return open_dataset(Cityscapes(root=str(root), **fields))


def stored(root, kind):
    (path,) = (root / "gtFine/val/city1").glob(f"*{kind}.png")
    return np.asarray(Image.open(path))


def test_label_ids_become_the_19_classes(tmp_path):
    root = write_cityscapes(tmp_path)
    data = opened(root)
    assert (data.num_classes, data.class_names[0], data.class_names[18]) == (19, "road", "bicycle")
    expected = np.array(TRAIN_IDS)[stored(root, "labelIds")]
    np.testing.assert_array_equal(data["val"][1].mask, expected)


def test_train_ids_are_taken_as_they_are(tmp_path):
    root = write_cityscapes(tmp_path, kind="labelTrainIds")
    np.testing.assert_array_equal(opened(root)["val"][1].mask, stored(root, "labelTrainIds"))


def test_the_classes_may_be_the_seven_categories(tmp_path):
    root = write_cityscapes(tmp_path)
    data = opened(root, classes="categories")
    assert data.class_names == (
        *("flat", "construction", "object", "nature", "sky", "human", "vehicle"),
    )
    ids, labels = stored(root, "labelIds"), data["val"][1].mask.numpy()
    assert set(labels[(ids == 24) | (ids == 25)].tolist()) == {5}
    assert set(labels[ids >= 31].tolist()) == {6}
    assert set(labels[ids < 7].tolist()) == {255}


def test_the_blank_test_masks_are_left_out_and_cities_are_groups(tmp_path):
    root = write_cityscapes(tmp_path, {"train": 3, "val": 2, "test": 1})
    listing = Cityscapes(root=str(root)).listing()
    assert set(listing.splits) == {"train", "val"}
    assert any("blank" in note for note in listing.notes)
    assert [sample.group for sample in listing.splits["train"]] == ["city0", "city1", "city2"]


def test_what_must_be_fetched_by_hand_is_said_with_its_address_and_place(tmp_path):
    assert not Cityscapes.looks_like(tmp_path)
    with pytest.raises(DataError, match=r"https://www.cityscapes-dataset.com") as error:
        opened(tmp_path)
    assert f"unpack both into {tmp_path}" in str(error.value)


def test_images_without_a_mask_are_counted(tmp_path):
    root = write_cityscapes(tmp_path)
    next((root / "gtFine/train/city1").glob("*.png")).unlink()
    with pytest.raises(DataError, match=r"1 of the 3 train images have no mask: .*city1"):
        opened(root)


def test_an_unknown_id_is_refused(tmp_path):
    root = write_cityscapes(tmp_path)
    path = next((root / "gtFine/train/city1").glob("*.png"))
    Image.fromarray(np.full((32, 64), 77, np.uint8)).save(path)
    with pytest.raises(DataError, match="holds 77, which Cityscapes does not know"):
        opened(root)
