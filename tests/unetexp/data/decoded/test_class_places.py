"""The index of where classes are: right, bounded, kept in the cache and rebuilt if damaged."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tests.support.data_folders import write_folder_dataset
from unetexp.data import Folder, open_dataset
from unetexp.data.decoded.class_places import MOST_PLACES, ClassPlaces


@pytest.fixture
def split(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    write_folder_dataset(tmp_path / "set", splits={"train": 5, "val": 2}, classes=4, void=0.1)
    return open_dataset(Folder(root=str(tmp_path / "set")))["train"]


def test_counts_are_the_pixels_of_each_image_without_void(split):
    places = split.class_places
    for index in range(len(split)):
        mask = split[index].mask.numpy()
        assert places.counts[index].tolist() == [(mask == label).sum() for label in range(4)]
    assert places.counts.sum(axis=0).tolist() == split.class_pixels.tolist()


def test_places_show_their_class_and_are_few(split):
    common = int(split.class_pixels.argmax())
    for index in range(len(split)):
        mask = split[index].mask.numpy().reshape(-1)
        for label in range(4):
            found = split.class_places.of(index, label)
            wanted = 0 if label == common else min(MOST_PLACES, (mask == label).sum())
            assert len(found) == wanted
            assert (mask[found] == label).all()
            assert len(set(found.tolist())) >= wanted / 3


def test_they_are_read_from_the_cache_and_counted_again_where_it_is_damaged(split, monkeypatch):
    first = split.class_places
    with monkeypatch.context() as patched:
        patched.setattr(ClassPlaces, "count", None)  # not called
        again = pickle.loads(pickle.dumps(split)).class_places
    assert np.array_equal(again.places, first.places)
    (kept,) = split._folder.glob("train.class-places.npz")
    kept.write_bytes(b"PK")
    assert np.array_equal(pickle.loads(pickle.dumps(split)).class_places.counts, first.counts)
