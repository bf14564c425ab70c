"""A cache of at most so many gigabytes: the oldest goes first, and what has no room is decoded."""

import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from unetexp.data import Folder, open_dataset
from unetexp.data.cache import room
from unetexp.data.sources import dataset_of_tree
from unetexp.errors import ConfigError
from unetexp.training.batches.train_batches import TrainBatches
from unetexp.training.config import decode_config

SET_BYTES = 6 * 40 * 48 * 4  # images in three channels, and masks


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("UNETEXP_CACHE", str(folder))
    return folder


@pytest.fixture
def limited(monkeypatch):
    return lambda sets: monkeypatch.setenv("UNETEXP_CACHE_GB", str(sets * SET_BYTES / 1e9))


def source(tmp_path, seed=0, **settings):
    place = tmp_path / f"data-{seed}"
    if not place.exists():
        write_folder_dataset(place, seed=seed, classes=3, void=0.1)
    return Folder(root=str(place), **settings)


def decoded(cache):
    return {path.parent.name for path in cache.glob("*/train.images")}


def forget(place, age_s):
    """As if the process that opened the set were gone, so long ago."""
    os.close(room._open.pop(place))
    os.utime(place / "index.json", (age_s, age_s))


def test_the_set_that_was_not_used_for_longest_goes_first(cache, tmp_path, limited):
    limited(2.5)
    names = []
    for seed, age in ((0, 1000), (1, 500)):
        names.append(open_dataset(source(tmp_path, seed)).fingerprint)
        forget(cache / names[-1], age)
    names.append(open_dataset(source(tmp_path, 2)).fingerprint)
    assert decoded(cache) == {names[0], names[2]}
    again = open_dataset(source(tmp_path, 1))  # is made again
    assert again["train"][0].image.shape == (3, 40, 48)


def test_a_set_that_is_open_stays(cache, tmp_path, limited):
    limited(1.5)
    first = open_dataset(source(tmp_path, 0))
    second = open_dataset(source(tmp_path, 1))
    assert decoded(cache) == {first.fingerprint}
    assert any("each time" in note for note in second.notes)
    assert first["train"][0].image.shape == second["train"][0].image.shape


def same(one, other):
    for part in ("image", "mask", "truth"):
        assert torch.equal(getattr(one, part), getattr(other, part))


@pytest.mark.parametrize("resize", [None, 32])
def test_what_has_no_room_has_the_same_samples_to_the_bit(
    cache, tmp_path, limited, monkeypatch, resize
):
    of = source(tmp_path, resize=resize)
    kept = open_dataset(of)
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "small"))
    limited(0)
    live = open_dataset(of)
    assert decoded(tmp_path / "small") == set()
    assert [note for note in live.notes if "--cache-gb" in note]
    assert live.fingerprint == kept.fingerprint
    same_record = {**kept.summary(), "notes": []}
    assert {**live.summary(), "notes": []} == same_record
    travelled = pickle.loads(pickle.dumps(live))
    told = dataset_of_tree(json.loads(json.dumps(live.tree())))
    for split in ("train", "val"):
        for index in range(len(kept[split])):
            for other in (live, travelled, told):
                same(kept[split][index], other[split][index])
    config = decode_config({"augment": {"crop_px": 32}, "batch_size": 2, "data": of.tree()})
    for one, other in zip(
        TrainBatches(kept["train"], config).epoch(1),
        TrainBatches(live["train"], config, workers=2).epoch(1),
        strict=True,
    ):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("resize", [None, 32])
def test_the_places_of_classes_are_found_in_masks_alone(
    cache, tmp_path, limited, monkeypatch, resize
):
    of = source(tmp_path, resize=resize)
    kept = open_dataset(of)["train"].class_places
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "small"))
    limited(0)
    live = pickle.loads(pickle.dumps(open_dataset(of)["train"]))
    for image in (tmp_path / "data-0/train/images").iterdir():
        image.write_bytes(b"no image")
    found = live.class_places
    assert found.counts.tolist() == kept.counts.tolist()
    assert found.places.tolist() == kept.places.tolist()


def test_it_is_kept_once_there_is_room(cache, tmp_path, limited):
    limited(0.5)
    live = open_dataset(source(tmp_path))
    limited(1.5)
    kept = open_dataset(source(tmp_path))
    assert decoded(cache) == {kept.fingerprint}
    assert not [note for note in kept.notes if "each time" in note]
    same(kept["val"][0], live["val"][0])


def test_the_disk_is_looked_at_before(cache, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=room._SPARE_BYTES + SET_BYTES // 2)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    live = open_dataset(source(tmp_path))
    assert decoded(cache) == set()
    assert any(str(cache) in note and "left for it" in note for note in live.notes)
    assert live["train"][3].image.dtype == torch.uint8


@pytest.mark.parametrize("given", ["many", "-1", "nan"])
def test_a_limit_that_is_none(cache, tmp_path, monkeypatch, given):
    monkeypatch.setenv("UNETEXP_CACHE_GB", given)
    with pytest.raises(ConfigError, match=r"UNETEXP_CACHE_GB"):
        open_dataset(source(tmp_path))


KILLED = """
import os, signal, sys
from unetexp.data import Folder, open_dataset
def stop(what, done, total):
    if what == sys.argv[2] and done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
open_dataset(Folder(root=sys.argv[1], resize=32), on_progress=stop)
"""


@pytest.mark.parametrize("at", ["Decoding images", "Scaling masks"])
def test_a_killed_build_leaves_nothing_that_is_believed(cache, tmp_path, at):
    of = source(tmp_path, resize=32)
    done = subprocess.run([sys.executable, "-c", KILLED, of.root, at])
    assert done.returncode == -9
    assert list(cache.glob("*.building-*"))
    steps = []
    data = open_dataset(of, on_progress=lambda *step: steps.append(step))
    assert ("Decoding images", 6, 6) in steps
    assert np.isin(data["train"][0].mask.numpy(), [0, 1, 2, 255]).all()
