"""Data folders: layouts, classes, splits, and every mistake a user can make in one."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.data_folders import write_folder_dataset
from unetexp.component import decode
from unetexp.data import DataSource, Folder, open_dataset
from unetexp.data.splits.seeded import seeded_split
from unetexp.errors import ConfigError, DataError

IMAGE, MASK = "train/images/000.png", "train/masks/000.png"


def opened(root, **settings):
    return open_dataset(Folder(root=str(root), **settings))


def map_masks(root, change, pattern="*/masks/*"):
    for path in root.glob(pattern):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def save_labels(path, *labels):
    Image.fromarray(np.resize(np.array(labels, np.uint8), (40, 48))).save(path)


@pytest.fixture
def root(tmp_path):
    return write_folder_dataset(tmp_path / "data")


def test_split_folders_are_taken_as_they_are(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"train": 3, "val": 2, "test": 1}, classes=3)
    data = opened(root)
    assert {name: split.names for name, split in data.splits.items()} == {
        "train": ("000", "001", "002"),
        "val": ("000", "001"),
        "test": ("000",),
    }
    for number, sample in enumerate(data["train"]):
        image = np.asarray(Image.open(root / f"train/images/{number:03d}.png"))
        mask = np.asarray(Image.open(root / f"train/masks/{number:03d}.png"))
        np.testing.assert_array_equal(sample.image, image.transpose(2, 0, 1))
        np.testing.assert_array_equal(sample.mask, mask)


def test_a_test_split_may_be_missing(root):
    data = opened(root)
    assert list(data.splits) == ["train", "val"]
    with pytest.raises(DataError, match=r"'test'.*train, val"):
        data["test"]


def test_a_flat_folder_is_split_by_the_seed(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"": 10})
    data = opened(root, val_fraction=0.3, test_fraction=0.1)
    names = {name: set(split.names) for name, split in data.splits.items()}
    assert {name: len(members) for name, members in names.items()} == {
        "train": 6,
        "val": 3,
        "test": 1,
    }
    assert len(set.union(*names.values())) == 10
    assert opened(root, val_fraction=0.3, test_fraction=0.1).fingerprint == data.fingerprint
    other = opened(root, val_fraction=0.3, test_fraction=0.1, seed=1)
    assert other["val"].names != data["val"].names
    assert other.fingerprint != data.fingerprint
    assert data.summary()["split"] == {
        "method": "seeded",
        "val_fraction": 0.3,
        "test_fraction": 0.1,
        "seed": 0,
    }


@given(
    count=st.integers(1, 60),
    val=st.floats(0.01, 0.6),
    test=st.floats(0, 0.39),
    seed=st.integers(0, 9),
)
def test_a_seeded_split_parts_the_names(count, val, test, seed):
    names = [f"{number:03d}" for number in range(count)]
    wanted = 3 if test else 2
    if count < wanted:
        with pytest.raises(DataError, match="too few"):
            seeded_split(names, {"val": val, "test": test}, seed)
        return
    splits = seeded_split(names, {"val": val, "test": test}, seed)
    assert len(splits) == wanted
    assert all(splits.values())
    assert sorted(name for members in splits.values() for name in members) == names
    assert splits == seeded_split(names[::-1], {"val": val, "test": test}, seed)


def test_an_added_image_moves_few_others_to_another_split():
    names = [f"{number:03d}" for number in range(100)]
    before = set(seeded_split(names, {"val": 0.2}, 0)["val"])
    after = set(seeded_split([*names, "new"], {"val": 0.2}, 0)["val"])
    assert len(before - after) <= 1


def test_files_are_paired_whatever_their_ending_and_case(root):
    (root / IMAGE).rename(root / "train/images/000.PNG")
    mask = Image.open(root / MASK)
    mask.save(root / "train/masks/000.tiff")
    (root / MASK).unlink()
    assert opened(root)["train"].names[0] == "000"


def test_accents_stored_apart_are_the_same_name(root):
    (root / IMAGE).rename(root / "train/images" / unicodedata.normalize("NFD", "é.png"))
    (root / MASK).rename(root / "train/masks" / unicodedata.normalize("NFC", "é.png"))
    assert "é" in opened(root)["train"].names


def test_what_operating_systems_leave_behind_is_ignored(root):
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
        (root / "train/images" / name).write_text("x")
    assert len(opened(root)["train"]) == 4


def test_the_root_may_be_a_link_and_links_inside_are_followed(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to(root / "train/images/001.png")
    assert len(opened(tmp_path / "link")["train"]) == 4


def test_mixed_depth_and_colour_become_16_bit_rgb(root):
    grey = np.full((40, 48), 1000, np.uint16)
    grey[0, 0] = 60000
    before = np.asarray(Image.open(root / "train/images/001.png")).transpose(2, 0, 1)
    Image.fromarray(grey).save(root / IMAGE)
    data = opened(root)
    assert (data.channels, data.image_max) == (3, max(60000, image_peak(root) * 257))
    np.testing.assert_array_equal(data["train"][0].image.int(), np.stack([grey] * 3))
    np.testing.assert_array_equal(data["train"][1].image.int(), before.astype(int) * 257)


def image_peak(root):
    """The largest value of the 8-bit images in the train split."""
    paths = sorted((root / "train/images").iterdir())[1:]
    return max(int(np.asarray(Image.open(path)).max()) for path in paths)


def test_grey_16_bit_images_keep_one_channel_and_the_train_maximum(root):
    for number, path in enumerate(sorted(root.glob("*/images/*"))):
        Image.fromarray(np.full((40, 48), 500 + number, np.uint16)).save(path)
    data = opened(root)
    assert (data.channels, data.image_max) == (1, 503)  # val goes up to 505
    assert data["train"][0].image.shape == (1, 40, 48)


def test_masks_of_0_and_255_are_binary_and_reported(root):
    expected = np.asarray(Image.open(root / MASK))
    map_masks(root, lambda mask: mask * 255)
    data = opened(root)
    assert data.class_names == ("0", "1")
    assert any("255 is read as class 1" in note for note in data.notes)
    assert data["train"].void_pixels == 0
    np.testing.assert_array_equal(data["train"][0].mask, expected)


def test_one_mask_of_0_and_255_among_others_keeps_its_void_and_is_noted(root):
    save_labels(root / MASK, 0, 255)
    save_labels(root / "train/masks/001.png", *[0, 1] * 959, 1, 255)  # here 255 is no class 1
    data = opened(root)
    assert data["train"].void_pixels == 961
    assert any("000 (train)" in note and "void" in note for note in data.notes)


def test_an_all_void_mask_is_noted(root):
    save_labels(root / MASK, 255)
    data = opened(root)
    assert any("every pixel is void" in note and "000 (train)" in note for note in data.notes)
    assert set(data["train"][0].mask.unique().tolist()) == {255}


def test_named_classes_that_are_never_used_are_noted(root):
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    data = opened(root)
    assert data.class_names == ("a", "b", "c", "d")
    assert any("in no mask at all: c, d" in note for note in data.notes)


def test_the_same_image_in_train_and_val_is_noted(root):
    shutil.copy(root / IMAGE, root / "val/images/001.png")
    assert any("also in the train split" in note for note in opened(root).notes)


@pytest.mark.parametrize("content", ["a\nb\n", "\ufeffa\r\nb\r\n", "a\nb\n\n\n", " a \n b"])
def test_classes_txt_names_the_classes(root, content):
    (root / "classes.txt").write_text(content, encoding="utf-8")
    assert opened(root).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1"),
        (b"one\n", "number of classes is 1"),
        (b"a\na\n", "second time"),
        (b"a\n\nb\n", "line 2 is ''"),
        (b"a\nb/c\n", "line 2 is 'b/c'"),
        (b"\xff\xfea", "UTF-8"),
    ],
)
def test_a_classes_txt_that_cannot_be_meant_is_refused(root, content, reason):
    (root / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        opened(root)
    assert "classes.txt" in str(error.value)


def name_three_classes(root):
    (root / "classes.txt").write_text("a\nb\nc\n")


def binary_with_three_names(root):
    name_three_classes(root)
    map_masks(root, lambda mask: mask * 255)


def link_out(root):
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to("/etc/hostname")


def link_folder_out(root):
    shutil.move(root / "val", root.parent / "elsewhere")
    (root / "val").symlink_to(root.parent / "elsewhere")


def dangling(root):
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to(root / "nowhere.png")


def pipe(root):
    (root / IMAGE).unlink()
    os.mkfifo(root / IMAGE)


def image_in_a_subfolder(root):
    (root / "train/images/more").mkdir()
    shutil.copy(root / IMAGE, root / "train/images/more")


def clear(folder):
    def mistake(root):
        for path in (root / folder).iterdir():
            path.unlink()

    return mistake


MISTAKES = {
    "missing": (shutil.rmtree, "does not exist"),
    "a file": (lambda root: (shutil.rmtree(root), root.write_text("")), "not a folder"),
    "empty": (lambda root: (shutil.rmtree(root), root.mkdir()), "holds nothing"),
    "no val": (lambda root: shutil.rmtree(root / "val"), "not val"),
    "both layouts": (lambda root: (root / "images").mkdir(), "remove or move"),
    "no masks folder": (lambda root: shutil.rmtree(root / "train/masks"), "train/masks.*missing"),
    "no masks": (clear("train/masks"), "no masks here"),
    "no images": (clear("val/images"), "val/images.*no images here"),
    "image alone": (lambda root: (root / MASK).unlink(), r"have no mask.*images/000\.png"),
    "mask alone": (lambda root: (root / IMAGE).unlink(), r"have no image.*masks/000\.png"),
    "other size": (
        lambda root: Image.fromarray(np.zeros((40, 49), np.uint8)).save(root / MASK),
        r"masks/000\.png.*40 x 49.*40 x 48",
    ),
    "truncated": (
        lambda root: (root / IMAGE).write_bytes((root / IMAGE).read_bytes()[:400]),
        r"images/000\.png.*truncated",
    ),
    "no image at all": (lambda root: (root / IMAGE).write_text("hello"), "is not an image"),
    "other format": (
        lambda root: (root / IMAGE).rename(root / "train/images/000.svg"),
        r"000\.svg.*PNG or TIFF",
    ),
    "two of one stem": (
        lambda root: shutil.copy(root / IMAGE, root / "train/images/000.jpg"),
        "same name",
    ),
    "subfolder": (image_in_a_subfolder, r"have no mask.*images/more/000\.png"),
    "beyond classes": (
        lambda root: (name_three_classes(root), save_labels(root / MASK, 0, 3)),
        r"masks/000\.png.*label 3.*3 classes",
    ),
    "binary with three names": (binary_with_three_names, "two classes, but 3"),
    "all void": (lambda root: map_masks(root, lambda m: m * 0 + 255), "every pixel"),
    "val all void": (
        lambda root: map_masks(root, lambda m: m * 0 + 255, "val/masks/*"),
        "in the val split",
    ),
    "one class": (lambda root: map_masks(root, lambda m: m * 0), "of one class, 0"),
    "one class in train": (
        lambda root: map_masks(root, lambda m: m * 0, "train/masks/*"),
        "train split hold one class",
    ),
    "link out": (link_out, "outside"),
    "linked folder out": (link_folder_out, "outside"),
    "dangling link": (dangling, "broken link"),
    "pipe": (pipe, "not a file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_message_and_leaves_nothing_half_made(root, name, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("UNETEXP_CACHE", str(cache))
    mistake, reason = MISTAKES[name]
    mistake(root)
    with pytest.raises(DataError, match=reason) as error:
        opened(root)
    assert str(root) in str(error.value)
    assert [path for path in cache.glob("*") if path.is_dir()] == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_to_split_are_refused(tmp_path, count):
    root = write_folder_dataset(tmp_path / "data", {"": count})
    with pytest.raises(DataError, match=r"no images here|too few"):
        opened(root, test_fraction=0.1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"val_fraction": 0}, "val_fraction"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing to train on"),
        ({"seed": -1}, "seed"),
        ({"root": ""}, "root"),
        ({"root": "~nobody-of-this-name/x"}, "no such user"),
        ({"roots": "x"}, "Did you mean 'root'"),
    ],
)
def test_a_setting_out_of_range_is_a_config_error(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        decode(DataSource, {"kind": "folder", "root": "x", **settings}, "data")


def test_a_relative_root_is_kept_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Folder(root="data").root == str(tmp_path / "data")
    assert Folder(root="~/data").root == str(Path.home() / "data")
