"""What a place is: kinds are known by the names of their files, everything else is a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.data_folders import write_folder_dataset
from tests.unetexp.data.layouts.test_layouts import write_pairs
from unetexp.component import Component, decode
from unetexp.data import Coco, DataSource
from unetexp.data.layouts.recognition import recognised
from unetexp.data.sources.recognised import recognised_tree
from unetexp.errors import DataError


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


def voc(root):
    image(root / "JPEGImages/1.jpg")
    image(root / "SegmentationClass/1.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name in ("train", "val"):
        (lists / f"{name}.txt").write_text("1\n")


def cityscapes(root):
    image(root / "leftImg8bit/train/a/a_0_0_leftImg8bit.png")
    image(root / "gtFine/train/a/a_0_0_gtFine_labelIds.png")


def camvid(root):
    for split in ("train", "val"):
        image(root / f"{split}/1.png")
        image(root / f"{split}annot/1.png")


def coco(root):
    image(root / "images/1.png")
    tree = {"images": [], "annotations": [], "categories": []}
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text(json.dumps(tree))


def nifti(root):
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
        (root / name / "case1.nii.gz").write_bytes(b"")


def manifest(root):
    write_pairs(root, "images/{n}.png", "masks/{n}.png")
    rows = [f"images/{n}.png,masks/{n}.png" for n in range(6)]
    (root / "table.csv").write_text("\n".join(["image,mask", *rows]))


KINDS = {
    "voc2012": voc,
    "cityscapes": cityscapes,
    "camvid": camvid,
    "coco": coco,
    "nifti": nifti,
    "manifest": manifest,
    "folder": write_folder_dataset,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_known_by_its_names(tmp_path, kind):
    root = tmp_path / "data"
    root.mkdir(exist_ok=kind != "folder")
    KINDS[kind](root)
    tree = recognised_tree(str(root))
    assert tree["kind"] == kind
    source = decode(DataSource, tree)
    assert getattr(source, "path", source.root).startswith(str(root))


def test_a_kind_is_known_inside_the_folder_that_unpacking_made(tmp_path):
    inner = tmp_path / "data/unpacked"
    inner.mkdir(parents=True)
    cityscapes(inner)
    assert recognised_tree(str(tmp_path / "data")) == {"kind": "cityscapes", "root": str(inner)}


def test_the_kind_can_be_set(tmp_path):
    manifest(tmp_path)
    assert recognised_tree(str(tmp_path), {"data.kind": "folder"})["kind"] == "folder"
    table = recognised_tree(str(tmp_path / "table.csv"))
    assert table == {"kind": "manifest", "path": str(tmp_path / "table.csv")}


def test_a_kind_s_name_and_a_uri_are_places_too():
    assert recognised_tree("mni152") == {"kind": "mni152"}
    uri = "s3://bucket/table.csv"
    assert recognised_tree(uri) == {"kind": "manifest", "path": uri}


def test_two_kinds_are_a_question(tmp_path):
    class One(Component):
        kind: str = "one"

        @classmethod
        def looks_like(cls, root):
            return True

    class Two(One):
        kind: str = "two"

    with pytest.raises(DataError, match=r"(?s)--set data\.kind=one.*--set data\.kind=two"):
        recognised(str(tmp_path), [One, Two])


def with_coco(root, place="annotations/instances_default.json"):
    tree = {"images": [], "annotations": [], "categories": []}
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(json.dumps(tree))


@pytest.mark.parametrize("place", ["annotations/instances_default.json", "annotations.json"])
@pytest.mark.parametrize("below", ["", "unpacked"])
def test_coco_annotations_beside_masks_are_a_question(tmp_path, place, below):
    inner = tmp_path / "data" / below
    write_pairs(inner, "images/{n}.jpg", "masks/{n}.png")
    with_coco(inner, place)
    with pytest.raises(
        DataError, match=r"(?s)two ways.*data\.kind=coco.*6 pairs.*data\.kind=folder"
    ):
        recognised_tree(str(tmp_path / "data"))
    chosen = recognised_tree(str(tmp_path / "data"), {"data.kind": "coco"})
    assert Coco.looks_like(Path(chosen["root"]))
    assert chosen["kind"] == "coco"
    assert recognised_tree(str(tmp_path / "data"), {"data.kind": "folder"})["kind"] == "folder"


def test_coco_annotations_beside_masks_of_some_images_are_no_question(tmp_path):
    write_pairs(tmp_path, "images/{n}.jpg", "masks/{n}.png")
    (tmp_path / "masks/1.png").unlink()
    with_coco(tmp_path)
    assert recognised_tree(str(tmp_path))["kind"] == "coco"
