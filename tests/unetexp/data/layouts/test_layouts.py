"""Folders as people bring them: each layout is read, with the right pairs, or gets its question."""

import re
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.data_folders import blobs
from unetexp.component import decode
from unetexp.data import DataSource, Folder, open_dataset
from unetexp.data.files.pairing import MASK_WORDS, matched, matched_together
from unetexp.errors import DataError
from unetexp.training.config import parse_assignments

SPLITS = {"train": 3, "val": 2, "test": 1}


def write_pairs(root, image, mask, count=6, *, splits=None, seed=0):
    """Pairs at the places that the formats `image` and `mask` make of a number and a split.

    Returns (split, number) -> (image, mask) as written; the split is None without `splits`.
    """
    rng, written = np.random.default_rng(seed), {}
    for split, number_of in (splits or {None: count}).items():
        for number in range(number_of):
            pixels, labels = blobs(rng, (40, 48), 2)
            for place, array in ((image, pixels), (mask, labels)):
                path = root / place.format(n=number, split=split)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path, lossless=True)
            written[split, number] = (pixels, labels)
    return written


def opened(root, **fields):
    return open_dataset(decode(DataSource, {"kind": "folder", "root": str(root), **fields}))


def refusal(root, **fields):
    with pytest.raises(DataError) as error:
        opened(root, **fields)
    assert str(root) in str(error.value)
    return str(error.value)


def number_of(name):
    return int(re.findall(r"\d+", name)[-1])


def assert_pairs(data, written, *, lossless=True):
    """Every pair is there once, in its split, the mask of each image beside it."""
    seen = []
    for name, split in data.splits.items():
        for sample in split:
            own = name if (name, number_of(sample.name)) in written else None
            pixels, labels = written[own, number_of(sample.name)]
            seen.append((own, number_of(sample.name)))
            np.testing.assert_array_equal(sample.mask, labels)
            if lossless:
                np.testing.assert_array_equal(sample.image, pixels.transpose(2, 0, 1))
    assert sorted(map(str, seen)) == sorted(map(str, written))


UNSPLIT = {
    "images and masks": ("images/{n}.png", "masks/{n}.png"),
    "imgs and labels": ("imgs/{n}.png", "labels/{n}.png"),
    "image and mask": ("Image/{n}.png", "Mask/{n}.png"),
    "names of VOC": ("JPEGImages/{n}.png", "SegmentationClass/{n}.png"),
    "annotations": ("images/{n}.png", "annotations/{n}.png"),
    "_mask": ("images/{n}.png", "masks/{n}_mask.png"),
    "_segmentation": ("images/ISIC_{n}.png", "masks/ISIC_{n}_segmentation.png"),
    "_label": ("images/{n}.png", "labels/{n}_label.png"),
    "-mask": ("images/{n}.png", "masks/{n}-mask.png"),
    "_gt": ("images/{n}.png", "gt/{n}_gt.png"),
    "an own suffix": ("images/{n}.png", "masks/{n}_outlined.png"),
    "a prefix": ("images/{n}.png", "masks/mask_{n}.png"),
    "words on both": ("images/img_{n}.png", "masks/mask_{n}.png"),
    "together": ("{n}.png", "{n}_mask.png"),
    "together, own suffix": ("{n}.png", "{n}_outlined.png"),
    "together, a prefix": ("{n}.png", "mask_{n}.png"),
    "together, words on both": ("{n}_sat.png", "{n}_mask.png"),
    "together, words before both": ("image_{n}.png", "label_{n}.png"),
    "together in images, words on both": ("images/im_{n}.png", "images/{n}_GT.png"),
    "OME": ("images/{n}.ome.tif", "masks/{n}.png"),
    "OME with a suffix": ("images/{n}.ome.tif", "masks/{n}_mask.ome.tiff"),
    "OME twice": ("images/{n}.ome.tif", "masks/{n}.ome.tif"),
    "OME together": ("{n}.ome.tif", "{n}_mask.tif"),
    "together in images": ("images/{n}.png", "images/{n}_mask.png"),
    "subfolders": ("images/site{n}/a_{n}.png", "masks/site{n}/a_{n}.png"),
    "one folder around": ("unpacked/images/{n}.png", "unpacked/masks/{n}.png"),
    "other endings": ("images/{n}.tif", "masks/{n}.png"),
}


@pytest.mark.parametrize("name", UNSPLIT)
def test_a_layout_without_splits_is_read(tmp_path, name):
    written = write_pairs(tmp_path, *UNSPLIT[name])
    data = opened(tmp_path)
    assert_pairs(data, written)
    assert data.split_record["method"] == "seeded"


SPLIT = {
    "split folders": ("{split}/images/{n}.png", "{split}/masks/{n}.png"),
    "images/train": ("images/{split}/{n}.png", "masks/{split}/{n}.png"),
    "img_dir/train": ("img_dir/{split}/{n}.png", "ann_dir/{split}/{n}.png"),
    "together in splits, words on both": ("{split}/{n}_sat.png", "{split}/{n}_mask.png"),
    "together in splits": ("{split}/{n}.png", "{split}/{n}_mask.png"),
    "train and train_masks": ("{split}/{n}.png", "{split}_masks/{n}_mask.png"),
    "a suffix in splits": ("{split}/images/{n}.png", "{split}/labels/{n}_seg.png"),
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_layout_with_splits_keeps_them(tmp_path, name):
    written = write_pairs(tmp_path, *SPLIT[name], splits=SPLITS)
    data = opened(tmp_path)
    assert {split: len(part) for split, part in data.splits.items()} == SPLITS
    assert_pairs(data, written)
    assert data.split_record["method"] == "folders"


@pytest.mark.parametrize(
    ("train", "val", "test"), [("Training", "Validation", "Testing"), ("TRAIN", "valid", "test")]
)
def test_splits_have_other_usual_names(tmp_path, train, val, test):
    names = {train: 3, val: 2, test: 1}
    written = write_pairs(tmp_path, *SPLIT["split folders"], splits=names)
    ours = dict(zip(names, SPLITS, strict=True))
    data = opened(tmp_path)
    assert_pairs(data, {(ours[split], n): pair for (split, n), pair in written.items()})


def test_photographs_and_masks_that_both_have_an_ending(tmp_path):
    written = write_pairs(
        tmp_path, "{split}/{n}_sat.jpg", "{split}/{n}_mask.png", splits={"train": 4, "valid": 2}
    )
    data = opened(tmp_path)
    ours = {"train": "train", "valid": "val"}
    assert_pairs(data, {(ours[s], n): pair for (s, n), pair in written.items()}, lossless=False)
    assert any("images end in _sat, masks end in _mask" in note for note in data.notes)
    chosen = opened(tmp_path, mask_suffix="_mask")
    assert chosen.fingerprint == data.fingerprint


def test_of_endings_on_both_the_one_without_a_partner_is_named(tmp_path):
    write_pairs(tmp_path, "{n}_sat.jpg", "{n}_mask.png")
    (tmp_path / "3_mask.png").unlink()
    with pytest.raises(DataError, match=r"1 of the \d+ images have no mask in .*3_sat\.jpg"):
        opened(tmp_path)


def test_names_of_ome_tiffs_stay_where_both_have_them(tmp_path):
    write_pairs(tmp_path, "images/{n}.ome.tif", "masks/{n}.ome.tif")
    assert "0.ome" in {name for split in opened(tmp_path).splits.values() for name in split.names}


@pytest.mark.parametrize("below", ["", "VOCdevkit/VOC2012/"])
def test_class_masks_of_another_name_are_offered_and_can_be_set(tmp_path, below):
    place = tmp_path / "data"
    written = write_pairs(
        place, below + "JPEGImages/{n}.png", below + "SegmentationClassAug/{n}.png"
    )
    (place / below / "ImageSets/Segmentation").mkdir(parents=True)
    (place / below / "ImageSets/Segmentation/train.txt").write_text("0\n")
    with pytest.raises(DataError, match=r"--set data\.masks=SegmentationClassAug") as error:
        opened(place)
    assert "masks=ImageSets" not in str(error.value)
    assert_pairs(opened(place, masks="SegmentationClassAug"), written)


def test_photographs_as_jpeg_beside_masks_as_png(tmp_path):
    written = write_pairs(tmp_path, "{n}.jpg", "{n}.png")
    assert_pairs(opened(tmp_path), written, lossless=False)


def test_the_layout_is_said(tmp_path):
    write_pairs(tmp_path, "imgs/{n}.png", "labels/{n}_gt.png")
    notes = " ".join(opened(tmp_path).notes)
    assert "images lie in imgs, masks in labels" in notes.lower()
    assert "_gt" in notes


SET = {
    "folders": ({"images": "a", "masks": "b"}, "a/{n}.png", "b/{n}.png"),
    "globs of files": ({"images": "*.png", "masks": "*_m.png"}, "x{n}.png", "x{n}_m.png"),
    "globs of folders": (
        {"images": "*/photo", "masks": "*/drawn"},
        "case{n}/photo/{n}.png",
        "case{n}/drawn/{n}.png",
    ),
    "a suffix": ({"mask_suffix": "_b"}, "images/{n}.png", "masks/{n}_b.png"),
    "images alone": ({"images": "x"}, "x/{n}.png", "x/{n}_mask.png"),
    "masks alone": ({"masks": "drawn"}, "images/{n}.png", "drawn/{n}.png"),
}


@pytest.mark.parametrize("name", SET)
def test_places_can_be_set(tmp_path, name):
    fields, image, mask = SET[name]
    written = write_pairs(tmp_path, image, mask)
    assert_pairs(opened(tmp_path, **fields), written)


def test_a_glob_with_splits_keeps_them(tmp_path):
    written = write_pairs(tmp_path, "{split}/x/{n}.png", "{split}/y/{n}.png", splits=SPLITS)
    assert_pairs(opened(tmp_path, images="*/x", masks="*/y"), written)


def test_the_train_folder_alone_can_be_split(tmp_path):
    write_pairs(tmp_path, *SPLIT["split folders"], splits={"train": 5, "test": 2})
    message = refusal(tmp_path)
    assert "not val" in message
    data = opened(tmp_path, **fields_in(message))
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 4, "val": 1}


def fields_in(text):
    """The settings of the data that a line of a message sets."""
    pasted = re.findall(r"--set (?:'[^']*'|[^\s']+)", text)
    changes = parse_assignments([shlex.split(each)[1].rstrip(".,;") for each in pasted])
    return {path.removeprefix("data."): value for path, value in changes.items()}


def test_two_masks_for_each_image_are_a_question(tmp_path):
    first = write_pairs(tmp_path, "{n}.png", "{n}_mask.png")
    other = write_pairs(tmp_path, "{n}.png", "{n}_edges.png", seed=1)
    images = {key: other[key][0] for key in other}
    message = refusal(tmp_path)
    readings = {fields_in(line)["mask_suffix"]: line for line in message.splitlines()[1:]}
    assert set(readings) == {"_mask", "_edges"}
    for suffix, written in (("_mask", first), ("_edges", other)):
        data = opened(tmp_path, mask_suffix=suffix)
        assert_pairs(data, {key: (images[key], pair[1]) for key, pair in written.items()})


def test_two_folders_of_masks_are_a_question(tmp_path):
    write_pairs(tmp_path, "images/{n}.png", "masks/{n}.png")
    other = write_pairs(tmp_path, "images/{n}.png", "labels/{n}.png", seed=1)
    message = refusal(tmp_path)
    readings = [fields_in(line) for line in message.splitlines()[1:]]
    assert {each["masks"] for each in readings} == {"masks", "labels"}
    chosen = next(each for each in readings if each["masks"] == "labels")
    assert_pairs(opened(tmp_path, **chosen), other)


def test_masks_among_the_images_beside_a_folder_of_masks_are_a_question(tmp_path):
    write_pairs(tmp_path, "images/{n}.png", "images/{n}_mask.png")
    for path in sorted((tmp_path / "images").iterdir()):
        target = tmp_path / "masks" / path.name
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(np.eye(40, 48, dtype=np.uint8)).save(target)
    readings = [fields_in(line) for line in refusal(tmp_path).splitlines()[1:]]
    assert readings == [{"images": "images", "masks": "masks"}, {"images": "images"}]
    assert sum(len(split) for split in opened(tmp_path, **readings[1]).splits.values()) == 6


def test_what_is_plainly_no_image_is_left_out_with_a_note(tmp_path):
    written = write_pairs(tmp_path, "images/{n}.png", "masks/{n}.png")
    for name in ("README.txt", "labels.json", "0.xml", "Thumbs.db"):
        (tmp_path / "images" / name).write_text("x")
    (tmp_path / "images/.ipynb_checkpoints").mkdir()
    (tmp_path / "images/.ipynb_checkpoints/0-checkpoint.png").write_text("x")
    data = opened(tmp_path)
    assert_pairs(data, written)
    assert any("README.txt" in note and "left out" in note for note in data.notes)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_out_of_the_root_are_followed_where_asked(tmp_path, what):
    written = write_pairs(tmp_path / "there", "images/{n}.png", "masks/{n}.png")
    root = tmp_path / "data"
    root.mkdir()
    if what == "folder":
        for name in ("images", "masks"):
            (root / name).symlink_to(tmp_path / "there" / name)
    else:
        for path in (tmp_path / "there").glob("*/*"):
            (root / path.parent.name).mkdir(exist_ok=True)
            (root / path.parent.name / path.name).symlink_to(path)
    message = refusal(root)
    assert "outside" in message
    assert_pairs(opened(root, **fields_in(message)), written)


def test_a_link_in_a_circle_is_refused(tmp_path):
    write_pairs(tmp_path, "images/{n}.png", "masks/{n}.png")
    (tmp_path / "images/again").symlink_to(tmp_path / "images")
    assert "link" in refusal(tmp_path)


class TestModalities:
    @pytest.fixture
    def root(self, tmp_path):
        written = write_pairs(tmp_path, "ct/{n}.png", "masks/{n}.png")
        write_pairs(tmp_path, "pet/{n}_pet.png", "masks/{n}.png")
        for (_, number), (_, labels) in written.items():
            Image.fromarray(labels).save(tmp_path / f"masks/{number}.png")
        return tmp_path

    def test_the_files_are_channels_in_order(self, root):
        listing = Folder(root=str(root), images={"ct": "ct", "pet": "pet"}).listing()
        for sample in listing.unsplit:
            ct, pet = sample.images
            assert ct == root / f"ct/{sample.name}.png"
            assert pet == root / f"pet/{sample.name}_pet.png"
            assert sample.mask == root / f"masks/{sample.name}.png"

    def test_a_missing_file_is_an_error(self, root):
        (root / "pet/3_pet.png").unlink()
        with pytest.raises(DataError, match=r"pet lacks 3.*data\.missing=zeros"):
            Folder(root=str(root), images={"ct": "ct", "pet": "pet"}).listing()


names = st.text("ab1_-", min_size=1, max_size=4)


@settings(max_examples=300)
@given(images=st.sets(names, min_size=1, max_size=5), masks=st.sets(names, min_size=1, max_size=5))
def test_files_of_different_names_are_never_paired(images, masks):
    match = matched(images, masks)
    assert len({image for _, image, _ in match.pairs}) == len(match.pairs)
    for shared, image, mask in match.pairs:
        assert image == shared
        affix = match.mask_affix
        assert mask == f"{affix.before}{shared}{affix.after}"
        if mask != image:
            assert all(m.startswith(affix.before) and m.endswith(affix.after) for m in masks)


@settings(max_examples=300)
@given(keys=st.sets(names, min_size=1, max_size=8))
def test_together_each_file_is_used_once_and_masks_have_one_affix(keys):
    whole, _ = matched_together(keys)
    for match in whole:
        used = [key for _, image, mask in match.pairs for key in (image, mask)]
        assert len(used) == len(set(used))
        affix = match.mask_affix
        assert all(m == f"{affix.before}{i}{affix.after}" for _, i, m in match.pairs)
        if len(match.pairs) == 1:
            assert (affix.before or affix.after).strip("_-") in MASK_WORDS


def test_several_masks_an_image_are_to_be_merged(tmp_path):
    for case in range(3):
        for folder in ("images", "masks"):
            (tmp_path / f"case{case}" / folder).mkdir(parents=True)
        pixels = Image.fromarray(np.zeros((32, 32), np.uint8))
        pixels.save(tmp_path / f"case{case}/images/case{case}.png")
        for number in range(2):
            pixels.save(tmp_path / f"case{case}/masks/object{case}{number}.png")
    with pytest.raises(DataError, match="one mask an image from them") as raised:
        Folder(root=str(tmp_path)).collect()
    assert "--set" not in str(raised.value)
