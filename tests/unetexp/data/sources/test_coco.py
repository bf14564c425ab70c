"""COCO's annotations: masks as pycocotools draws them, crowds, overlaps and mistakes."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.support.data_sources import coco_content, picture, write_coco
from unetexp.data import Coco, open_dataset
from unetexp.errors import DataError


def opened(root, **fields):
    return open_dataset(Coco(root=str(root), **fields))


def reference(path, key, classes):
    """The mask by pycocotools' own objects: crowds below, then from the largest to the smallest."""
    coco = COCO(path)
    entries = coco.loadAnns(coco.getAnnIds(imgIds=[key]))
    drawn = [(e["iscrowd"], coco.annToMask(e).astype(bool), e["category_id"]) for e in entries]
    mask = np.zeros(drawn[0][1].shape, np.uint8)
    for crowd, region, category in sorted(drawn, key=lambda e: (-e[0], -e[1].sum())):
        if category in classes:
            mask[region] = 255 if crowd else classes[category]
    return mask


def test_masks_equal_those_of_pycocotools(tmp_path):
    root = write_coco(tmp_path)
    data = opened(root)
    assert data.class_names == ("background", "person", "dog")
    path = root / "annotations/instances_train2017.json"
    expected = reference(path, 2, {1: 1, 18: 2})
    assert set(np.unique(expected)) == {0, 1, 2, 255}
    np.testing.assert_array_equal(data["train"][1].mask, expected)


def test_the_smaller_of_two_objects_lies_on_top_and_a_crowd_below(tmp_path):
    mask = opened(write_coco(tmp_path))["train"][0].mask
    assert mask[15, 15] == 2  # the dog in the person, though it is first in the file
    assert mask[8, 8] == 1
    assert mask[15, 29] == 1  # the person in the crowd
    assert mask[15, 40] == 255


def test_chosen_categories_are_the_classes_and_the_others_background(tmp_path):
    root = write_coco(tmp_path)
    data = opened(root, categories=("dog",))
    assert data.class_names == ("background", "dog")
    assert set(np.unique(data["train"][0].mask)) == {0, 1}
    assert data.fingerprint != opened(root).fingerprint
    assert any("background here: person" in note for note in data.notes)


def test_the_splits_are_those_of_the_files(tmp_path):
    data = opened(write_coco(tmp_path, {"train": 3, "val": 2, "test": 1}))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 3,
        "val": 2,
        "test": 1,
    }
    assert data["val"].names == ("000000000004", "000000000005")


def single(root, place="annotations.json", folder="images", count=6):
    names = {key: f"photo{key}.jpg" for key in range(1, count + 1)}
    for name in names.values():
        picture(root / folder / name, np.zeros((40, 48, 3), np.uint8))
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco_content(names)))
    return path


def test_one_file_beside_images_is_split_by_the_seed(tmp_path):
    single(tmp_path)
    assert Coco.looks_like(tmp_path)
    data = opened(tmp_path, val_fraction=0.5)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "val": 3}


def test_files_beside_their_images_in_split_folders_are_found(tmp_path):
    for split in ("train", "valid"):
        single(tmp_path, f"{split}/_annotations.coco.json", split, count=2)
    assert {n: len(s) for n, s in opened(tmp_path).splits.items()} == {"train": 2, "val": 2}


def test_files_and_the_folder_of_images_can_be_named(tmp_path):
    single(tmp_path, "a/one.json", "b")
    with pytest.raises(DataError, match=r"there are no COCO annotations .*data.annotations="):
        opened(tmp_path)
    with pytest.raises(DataError, match=r"6 of its 6 images do not exist.*data.images=FOLDER"):
        opened(tmp_path, annotations=("a/one.json",))
    assert opened(tmp_path, annotations=("a/one.json",), images="b").num_classes == 3


def changed(root, change):
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return root


def test_images_without_annotations_are_background_and_counted(tmp_path):
    def strip(content):
        content["annotations"] = [e for e in content["annotations"] if e["image_id"] != 1]

    data = opened(changed(write_coco(tmp_path), strip))
    assert not data["train"][0].mask.any()
    assert any("1 of 5 images have no annotation" in note for note in data.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=7), "belongs to the category 7"),
        (lambda c: c["annotations"][0].update(image_id=99), "belongs to the image 99"),
        (lambda c: c.pop("categories"), "the lists categories are missing"),
        (lambda c: c["images"][0].pop("height"), "an entry lacks a field.*height"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2]]), "cannot be decoded"),
        (
            lambda c: c["annotations"][2]["segmentation"].update(size=[48, 40]),
            "a region of 000000000001.jpg is 48 x 40",
        ),
        (lambda c: c["images"][0].update(height=41), "a region of|the mask is 41 x 48"),
    ],
)
def test_damaged_entries_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        opened(changed(write_coco(tmp_path), change))


def test_boxes_alone_are_refused(tmp_path):
    def boxes(content):
        for entry in content["annotations"]:
            entry["segmentation"] = []

    root = changed(write_coco(tmp_path, {"train": 3}), boxes)
    with pytest.raises(DataError, match="boxes only"):
        opened(root)


def test_a_file_that_was_cut_off_is_named(tmp_path):
    root = write_coco(tmp_path)
    path = root / "annotations/instances_val2017.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"instances_val2017.json: this file is not JSON"):
        opened(root)


def test_an_unknown_category_names_the_nearest(tmp_path):
    with pytest.raises(DataError, match=r"no category 'pesron'. Did you mean 'person'"):
        opened(write_coco(tmp_path), categories=("pesron",))


def test_files_with_other_categories_are_refused(tmp_path):
    def rename(content):
        content["categories"][0]["name"] = "cat"

    with pytest.raises(DataError, match="the category 18 is 'dog', and 'cat'"):
        opened(changed(write_coco(tmp_path), rename))


def test_other_json_files_do_not_look_like_coco(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": {}, "images": 3}')
    assert not Coco.looks_like(tmp_path)


@pytest.mark.parametrize(("field", "what"), [("category_id", "category"), ("image_id", "image")])
def test_an_unknown_id_is_named_in_one_sentence(tmp_path, field, what):
    path = single(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][0][field] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=rf"annotations.json: the annotation 1 .*{what} 99"
    ) as error:
        opened(tmp_path)
    assert "DataError" not in str(error.value)
    assert "lacks a field" not in str(error.value)
