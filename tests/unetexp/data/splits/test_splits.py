"""Classes are spread over the splits; a split that lacks one is refused before training."""

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.data_folders import write_folder_dataset, write_pets
from unetexp.component import decode
from unetexp.data import DataSource, Folder, OxfordPet, open_dataset
from unetexp.data.splits.seeded import seeded_split
from unetexp.errors import DataError
from unetexp.training.config import parse_assignments


def write_masks(folder, label_sets):
    """Small images and, for each entry, a mask that holds just these labels in equal parts."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, labels in enumerate(label_sets):
        mask = np.resize(np.repeat(np.array(sorted(labels), np.uint8), 4), (16, 20))
        image = np.full((16, 20), number, np.uint8)
        Image.fromarray(image).save(folder / f"images/{number:03d}.png")
        Image.fromarray(mask).save(folder / f"masks/{number:03d}.png")
    return folder


def held(split):
    return {int(label) for sample in split for label in sample.mask.unique()} - {255}


SPARSE = [{0}] * 16 + [{0, 1}] * 4


@pytest.mark.parametrize("seed", range(8))
def test_rare_classes_are_in_every_split_whatever_the_seed(tmp_path, seed):
    root = write_masks(tmp_path / "data", SPARSE)
    data = open_dataset(Folder(root=str(root), seed=seed, test_fraction=0.2))
    assert [len(split) for split in data.splits.values()] == [12, 4, 4]
    for split in data.splits.values():
        assert held(split) == {0, 1}
    assert data.split_record["stratified"] == "by class"


def deviation(splits, classes, shares):
    """Sum over splits and classes of the difference between a class's masks and its share."""
    off = 0.0
    for label in set().union(*classes.values()):
        total = sum(label in held for held in classes.values())
        for split, share in shares.items():
            off += abs(sum(label in classes[name] for name in splits[split]) - share * total)
    return off


def test_each_class_gets_its_share():
    rng = np.random.default_rng(0)
    shares = {"val": 0.2, "test": 0.1}
    classes = {f"{i:03d}": {k for k in range(1, 9) if rng.random() < 0.06 * k} for i in range(400)}
    off = deviation(seeded_split(list(classes), shares, 0, classes), classes, shares)
    assert off < 16  # at most one mask a class and split
    assert off < deviation(seeded_split(list(classes), shares, 0), classes, shares) / 2


label_sets = st.lists(st.sets(st.integers(0, 4)), min_size=3, max_size=30)


@given(label_sets=label_sets, val=st.floats(0.05, 0.5), seed=st.integers(0, 5))
def test_a_stratified_split_is_a_split_of_the_same_sizes(label_sets, val, seed):
    classes = {f"{number:03d}": held for number, held in enumerate(label_sets)}
    fractions = {"val": val, "test": 0.1}
    splits = seeded_split(list(classes), fractions, seed, classes)
    plain = seeded_split(list(classes), fractions, seed)
    assert {k: len(v) for k, v in splits.items()} == {k: len(v) for k, v in plain.items()}
    assert sorted(name for members in splits.values() for name in members) == sorted(classes)
    shuffled = list(classes)[::-1]
    assert splits == seeded_split(shuffled, fractions, seed, {k: classes[k] for k in shuffled})


def test_where_all_masks_hold_the_same_classes_the_split_is_the_plain_draw(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"": 10}, classes=3)
    data = open_dataset(Folder(root=str(root)))
    order = sorted(
        (f"{number:03d}" for number in range(10)),
        key=lambda name: hashlib.sha256(f"0/{name}".encode()).digest(),
    )
    assert data["val"].names == tuple(sorted(order[:2]))
    assert "stratified" not in data.split_record


def test_the_masks_are_read_for_the_split_once(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    source = Folder(root=str(write_masks(tmp_path / "data", SPARSE)))
    steps = []
    first = open_dataset(source, on_progress=lambda *step: steps.append(step))
    assert ("Reading masks", 20, 20) in steps
    steps.clear()
    assert open_dataset(source, on_progress=lambda *step: steps.append(step)).splits.keys()
    assert {what for what, _, _ in steps} == {"Checking files"}
    for damaged in (tmp_path / "cache").glob("*.labels.npy"):
        damaged.write_bytes(b"damaged")
    assert open_dataset(source).fingerprint == first.fingerprint


def test_binary_masks_of_0_and_255_are_stratified_too(tmp_path):
    root = write_masks(tmp_path / "data", [{0}] * 16 + [{0, 255}] * 4)
    data = open_dataset(Folder(root=str(root), test_fraction=0.2))
    assert all(held(split) == {0, 1} for split in data.splits.values())


def test_val_of_the_pets_is_stratified(tmp_path):
    root = write_pets(tmp_path, trainval=10)
    trimaps = root / "oxford-iiit-pet/annotations/trimaps"
    for number in range(8):  # only two hold a border
        path = trimaps / f"trainval_{number}.png"
        trimap = np.asarray(Image.open(path))
        Image.fromarray(np.where(trimap == 3, 1, trimap).astype(np.uint8)).save(path)
    for seed in range(5):
        data = open_dataset(OxfordPet(root=str(root), seed=seed))
        assert held(data["train"]) == held(data["val"]) == {0, 1, 2}


@pytest.fixture
def own_split(tmp_path):
    """The user's own split folders: val holds no label 2, which is in 1 of 4 masks of train."""
    root = tmp_path / "data"
    write_masks(root / "train", [{0, 1}, {0, 1}, {0, 1, 2}, {0, 1}])
    write_masks(root / "val", [{0, 1}, {0}])
    return root


def test_a_val_folder_without_a_class_is_refused(own_split):
    with pytest.raises(DataError, match=r"val split.*2 \(in 1 of all 6 masks\).*Move") as error:
        open_dataset(Folder(root=str(own_split)))
    assert str(own_split) in str(error.value)


def test_it_is_refused_too_where_the_cache_holds_the_set(own_split):
    data = open_dataset(Folder(root=str(own_split)), to_train=False)
    assert any("val split: 2" in note for note in data.notes)
    with pytest.raises(DataError, match="val split"):
        open_dataset(Folder(root=str(own_split)))


def test_the_printed_map_leaves_the_class_out(own_split):
    (own_split / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r"class c .*take it out of classes\.txt") as error:
        open_dataset(Folder(root=str(own_split)))
    assignment = re.search(r"--set '(data\.label_map=[^']*)'", str(error.value))[1]
    (own_split / "classes.txt").write_text("a\nb\n")
    label_map = parse_assignments([assignment])["data.label_map"]
    tree = {"kind": "folder", "root": str(own_split), "label_map": label_map}
    data = open_dataset(decode(DataSource, tree))
    assert data.class_names == ("a", "b")
    assert held(data["train"]) == {0, 1}
    assert data["train"].void_pixels > 0


def test_a_class_that_train_lacks_is_refused(tmp_path):
    root = tmp_path / "data"
    write_masks(root / "train", [{0, 1}, {0, 1}])
    write_masks(root / "val", [{0, 1}])
    write_masks(root / "test", [{0, 1, 2}])
    with pytest.raises(DataError, match=r"train split.*cannot be learnt[\s\S]*val split"):
        open_dataset(Folder(root=str(root)))


def test_a_class_that_only_test_lacks_is_noted(tmp_path):
    root = tmp_path / "data"
    for split in ("train", "val"):
        write_masks(root / split, [{0, 1, 2}])
    write_masks(root / "test", [{0, 1}])
    notes = open_dataset(Folder(root=str(root))).notes
    assert "Classes that occur in no mask of the test split: 2." in notes


@pytest.mark.parametrize(
    ("label_sets", "remedy"),
    [
        ([{0}] * 9 + [{0, 1}] * 9 + [{0, 2}], "Label more images"),
        ([{0}, {0}, {0, 1}, {0, 1}, {0, 2}, {0, 2}], r"larger data\.val_fraction"),
    ],
)
def test_a_drawn_split_that_cannot_hold_all_classes_is_refused(tmp_path, label_sets, remedy):
    root = write_masks(tmp_path / "data", label_sets)
    with pytest.raises(DataError, match=f"no mask of the val split.*{remedy}"):
        open_dataset(Folder(root=str(root)))
