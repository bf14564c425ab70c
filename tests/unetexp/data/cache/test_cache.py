"""The decoded cache: built once, rebuilt when needed, never visible when incomplete."""

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.support.data_folders import write_folder_dataset
from unetexp.data import Folder, open_dataset
from unetexp.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("UNETEXP_CACHE", str(folder))
    return folder


@pytest.fixture
def source(tmp_path):
    return Folder(root=str(write_folder_dataset(tmp_path / "data")))


def folders_in(cache):
    return [path for path in cache.iterdir() if path.is_dir()]


def steps_of(source):
    steps = []
    data = open_dataset(source, on_progress=lambda *step: steps.append(step))
    return data, steps


def test_decoding_happens_once_and_progress_is_reported(cache, source):
    data, first = steps_of(source)
    again, second = steps_of(source)
    assert first[-1] == ("Decoding images", 6, 6)
    assert {what for what, _, _ in second} == {"Checking files"}
    assert again.summary() == data.summary()
    assert [path.name for path in folders_in(cache)] == [data.fingerprint]


def test_the_fingerprint_is_of_the_content_not_of_the_place(cache, source, tmp_path):
    data = open_dataset(source)
    shutil.copytree(source.root, tmp_path / "copy")
    assert open_dataset(Folder(root=str(tmp_path / "copy"))).fingerprint == data.fingerprint


@pytest.mark.parametrize("change", ["pixel", "label", "name", "classes"])
def test_any_change_of_the_data_is_a_new_fingerprint(cache, source, tmp_path, change):
    before = open_dataset(source)
    train = tmp_path / "data/train"
    if change in ("pixel", "label"):
        path = train / ("images" if change == "pixel" else "masks") / "000.png"
        pixels = np.array(Image.open(path))
        pixels[5, 5] = 1 - pixels[5, 5] % 2
        Image.fromarray(pixels).save(path)
    elif change == "name":
        for folder in ("images", "masks"):
            (train / folder / "000.png").rename(train / folder / "new.png")
    else:
        (tmp_path / "data/classes.txt").write_text("a\nb\n")
    assert open_dataset(source).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    "tear",
    [
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text("{"),
        lambda folder: (folder / "index.json").write_text("{}"),
        lambda folder: (folder / "train.images").unlink(),
        lambda folder: (folder / "train.images").write_bytes(b"x"),
        lambda folder: (folder / "val.masks").write_bytes(b""),
        lambda folder: [path.unlink() for path in folder.iterdir()],
    ],
)
def test_a_damaged_cache_is_rebuilt(cache, source, tear):
    before = open_dataset(source)
    expected = before["train"][0].image
    tear(cache / before.fingerprint)
    after, steps = steps_of(source)
    assert ("Decoding images", 6, 6) in steps
    assert (after["train"][0].image == expected).all()
    assert len(folders_in(cache)) == 1


def test_what_a_killed_build_left_is_removed_once_it_is_old(cache, source):
    fingerprint = open_dataset(source).fingerprint
    shutil.rmtree(cache / fingerprint)
    old, young = (cache / f"{fingerprint}.building-{name}" for name in ("old", "young"))
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    open_dataset(source)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("place", ["/proc/unetexp", "{file}", "{file}/below"])
def test_an_unusable_cache_folder_is_named_with_its_variable(source, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    place = place.format(file=tmp_path / "file")
    monkeypatch.setenv("UNETEXP_CACHE", place)
    with pytest.raises(DataError, match="UNETEXP_CACHE") as error:
        open_dataset(source)
    assert place in str(error.value)


def test_many_openers_at_once_agree(cache, source):
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: open_dataset(source), range(6)))
    assert len({data.fingerprint for data in opened}) == 1
    assert len(folders_in(cache)) == 1
    assert all((data["val"][0].mask == opened[0]["val"][0].mask).all() for data in opened)


def test_a_builder_that_comes_second_uses_what_is_there(cache, source):
    """As on a shared file system that does not show the other node's lock."""
    fingerprint = open_dataset(source).fingerprint
    place, elsewhere = cache / fingerprint, cache.parent / "elsewhere"
    place.rename(elsewhere)
    winner = (elsewhere / "index.json").stat().st_ino

    def other_node_finishes(what, done, total):
        if what == "Decoding images" and done == total:
            elsewhere.rename(place)

    data = open_dataset(source, on_progress=other_node_finishes)
    assert (place / "index.json").stat().st_ino == winner
    assert data["train"][0].image.shape == (3, 40, 48)
    assert folders_in(cache) == [place]


def test_an_interrupted_build_leaves_nothing(cache, source):
    def interrupt(what, done, total):
        if what == "Decoding images" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset(source, on_progress=interrupt)
    assert folders_in(cache) == []


SCRIPT = """
import pickle, sys
data = pickle.load(sys.stdin.buffer)
print(data.fingerprint, int(data["train"][-1].image.long().sum()), int(data["val"][0].mask.sum()))
"""


def test_a_dataset_travels_to_another_process_without_its_pixels(cache, source):
    data = open_dataset(source)
    image, mask = data["train"][-1].image, data["val"][0].mask
    message = pickle.dumps(data)  # after use, with the files mapped
    assert len(message) < 4000 < image.numel()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=message, capture_output=True, check=True
    )
    expected = [data.fingerprint, str(int(image.long().sum())), str(int(mask.sum()))]
    assert done.stdout.decode().split() == expected


def test_a_dataset_whose_cache_is_gone_says_so(cache, source):
    data = open_dataset(source)
    shutil.rmtree(cache / data.fingerprint)
    with pytest.raises(DataError, match="missing or damaged"):
        data["train"][0]
