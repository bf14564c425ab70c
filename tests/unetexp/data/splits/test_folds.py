"""Data in folds: what each model trains on and validates, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.data_folders import write_folder_dataset, write_pets
from tests.unetexp.data.splits.test_splits import SPARSE, held, write_masks
from unetexp.component import decode
from unetexp.data import Dataset, DataSource, Folder, OxfordPet, open_dataset
from unetexp.data.decoded.class_places import MOST_PLACES, ClassPlaces
from unetexp.data.folded import rounds
from unetexp.data.splits.folds import fold_split
from unetexp.errors import ConfigError, DataError


@given(count=st.integers(5, 40), folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_plain_folds_differ_by_one_image_at_most(count, folds, seed):
    names = [f"{number:03d}" for number in range(count)]
    found = fold_split(names, folds, seed)
    assert list(found) == [f"fold_{index}" for index in range(folds)]
    assert sorted(name for fold in found.values() for name in fold) == names
    sizes = [len(fold) for fold in found.values()]
    assert max(sizes) - min(sizes) <= 1


def test_an_added_image_moves_few():
    names = [f"{number:03d}" for number in range(200)]
    before, after = fold_split(names, 4, 0), fold_split([*names, "new"], 4, 0)
    assert sum(len(set(before[fold]) - set(after[fold])) for fold in before) <= 4


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    root = write_folder_dataset(tmp_path_factory.mktemp("data"), {"": 11}, size=(16, 20))
    return open_dataset(Folder(root=str(root), folds=3, test_fraction=0.2))


def test_every_image_outside_test_is_validated_once(folded):
    assert len(folded["test"]) == 2
    validated = [name for each in rounds(folded) for name in each["val"].names]
    assert len(validated) == len(set(validated)) == 9
    assert not set(validated) & set(folded["test"].names)
    for each in rounds(folded):
        assert sorted(each["train"].names + each["val"].names) == sorted(validated)
        assert each["test"].names == folded["test"].names
        assert each.fingerprint == folded.fingerprint


def test_the_samples_are_those_of_the_whole_set(folded, tmp_path):
    whole = {sample.name: sample for sample in folded["train"]}
    assert len(whole) == 9
    for each in rounds(folded):
        for sample in each["train"]:
            assert torch.equal(sample.image, whole[sample.name].image)
            assert torch.equal(sample.mask, whole[sample.name].mask)
        parts = each["train"].class_pixels + each["val"].class_pixels
        assert parts.tolist() == folded["train"].class_pixels.tolist()


def test_classes_are_found_in_the_samples_of_a_round(folded):
    for each in rounds(folded):
        split = each["train"]
        counts = [[int((sample.mask == k).sum()) for k in range(2)] for sample in split]
        assert split.class_places.counts.tolist() == counts
        for index, sample in enumerate(split):
            places = split.class_places.of(index, 1)
            assert len(places)
            assert bool((sample.mask.flatten()[places.astype("int64")] == 1).all())


def test_classes_are_found_where_folds_differ_in_their_commonest(tmp_path, monkeypatch):
    root = write_folder_dataset(tmp_path / "set", {"": 8}, size=(16, 20))
    Image.new("RGB", (60, 60)).save(root / "images/large.png")  # one fold's commonest class is 1
    mask = np.ones((60, 60), np.uint8)
    mask[:10] = 0
    Image.fromarray(mask).save(root / "masks/large.png")
    data = open_dataset(Folder(root=str(root), folds=3, test_fraction=0))
    commonest = {int(fold.class_pixels.argmax()) for fold in data.folds}
    assert commonest == {0, 1}
    for split in (data["train"], *(each["train"] for each in rounds(data))):
        places, common = split.class_places, int(split.class_pixels.argmax())
        for index, sample in enumerate(split):
            mask = sample.mask.numpy().reshape(-1)
            assert places.counts[index].tolist() == [(mask == label).sum() for label in (0, 1)]
            assert len(places.of(index, common)) == 0
            found = places.of(index, 1 - common)
            assert len(found) == min(MOST_PLACES, (mask == 1 - common).sum())
            assert (mask[found] == 1 - common).all()
        monkeypatch.setattr(ClassPlaces, "count", None)  # another process reads what is kept
        again = pickle.loads(pickle.dumps(split)).class_places
        assert again.places.tolist() == places.places.tolist()
        monkeypatch.undo()


def test_it_reaches_other_processes_whole(folded):
    for copy in (pickle.loads(pickle.dumps(folded)), Dataset.of_tree(folded.tree())):
        assert [each["val"].names for each in rounds(copy)] == [
            each["val"].names for each in rounds(folded)
        ]
        assert torch.equal(copy["train"][8].image, folded["train"][8].image)


def test_what_is_recorded(folded):
    assert folded.split_record["folds"] == 3
    assert [fold["images"] for fold in folded.summary()["folds"]] == [3, 3, 3]
    assert set(folded.members()) == {"fold_0", "fold_1", "fold_2", "test"}


def test_rare_classes_are_in_every_fold(tmp_path):
    root = write_masks(tmp_path / "data", SPARSE)
    for seed in range(4):
        data = open_dataset(Folder(root=str(root), folds=4, seed=seed))
        assert [len(fold) for fold in data.folds] == [5] * 4
        assert all(held(fold) == {0, 1} for fold in data.folds)


def test_a_class_in_fewer_folds_than_there_are_is_refused(tmp_path):
    root = write_masks(tmp_path / "data", [{0}] * 8 + [{0, 1}] * 3)
    with pytest.raises(DataError, match=r"each of the 5 folds.*1 \(in 3 masks.*data\.folds=3"):
        open_dataset(Folder(root=str(root), folds=5))


def test_given_train_and_val_are_divided_and_test_stays(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"train": 4, "val": 2, "test": 2}, (16, 20))
    data = open_dataset(Folder(root=str(root), folds=3, val_fraction=0.3))
    validated = [name for each in rounds(data) for name in each["val"].names]
    assert sorted(validated) == [
        *(f"train/{number:03d}" for number in range(4)),
        *(f"val/{number:03d}" for number in range(2)),
    ]
    assert data["test"].names == ("000", "001")
    assert any("data.val_fraction (0.3): without effect" in note for note in data.notes)


def test_the_authors_test_split_of_the_pets_stays(tmp_path):
    root = write_pets(tmp_path, trainval=6)
    data = open_dataset(OxfordPet(root=str(root), folds=2))
    assert data["test"].names == ("test_0", "test_1")
    assert [len(fold) for fold in data.folds] == [3, 3]


@pytest.mark.parametrize("none", [0, None])
def test_no_folds(none, tmp_path):
    assert Folder(root=str(tmp_path), folds=none) == Folder(root=str(tmp_path))


def test_one_fold_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="folds"):
        decode(DataSource, {"kind": "folder", "root": str(tmp_path), "folds": 1})
