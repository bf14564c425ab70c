"""A cache at the working size: scaled once, with the masks as they were."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.support.data_folders import write_folder_dataset
from unetexp.data import Dataset, Folder, Mni152, open_dataset
from unetexp.data.resizing import resized_image, resized_mask


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return write_folder_dataset(tmp_path / "data", size=(60, 80), classes=3, void=0.05)


def test_samples_are_at_the_working_size_and_masks_at_both(root):
    plain = open_dataset(Folder(root=str(root)))
    data = open_dataset(Folder(root=str(root), resize=32))
    assert data.fingerprint != plain.fingerprint
    for before, sample in zip(plain["val"], data["val"], strict=True):
        image = resized_image(before.image.numpy(), (24, 32))
        assert (sample.image.numpy() == image).all()
        assert (sample.mask.numpy() == resized_mask(before.mask.numpy(), (24, 32))).all()
        assert (sample.truth == before.mask).all()
    assert data["val"].shapes == ((24, 32),) * 2
    assert data["val"].original_shapes == ((60, 80),) * 2
    counted = np.bincount(
        np.concatenate([sample.mask.reshape(-1) for sample in data["train"]]), minlength=256
    )
    assert data["train"].class_pixels.tolist() == counted[:3].tolist()
    assert data["train"].void_pixels == counted[255]


def test_it_is_said_and_recorded(root):
    data = open_dataset(Folder(root=str(root), resize=[30, 20]))
    assert any("30 x 20" in note and "data.resize" in note for note in data.notes)
    summary = data.summary()
    assert summary["resize"] == [30, 20]
    assert summary["splits"]["val"]["original_width_px"] == [80, 80]


def test_each_working_size_is_a_set_of_its_own_and_the_same_one_is_not_built_again(root):
    sizes = (None, 32, 40, [32, 32], {"scale": 0.5})
    prints = [open_dataset(Folder(root=str(root), resize=size)).fingerprint for size in sizes]
    assert len(set(prints)) == 5
    steps = []
    again = open_dataset(Folder(root=str(root), resize=40), on_progress=lambda *s: steps.append(s))
    assert again.fingerprint == prints[2]
    assert {what for what, _, _ in steps} == {"Checking files"}


def test_progress_is_reported_for_masks_too(root):
    steps = []
    open_dataset(Folder(root=str(root), resize=32), on_progress=lambda *s: steps.append(s))
    assert steps[-1] == ("Scaling masks", 6, 6)
    assert ("Decoding images", 6, 6) in steps


def test_it_travels_to_other_processes(root):
    data = open_dataset(Folder(root=str(root), resize={"scale": 0.5}))
    told = Dataset.of_tree(json.loads(json.dumps(data.tree())))
    for other in (told, pickle.loads(pickle.dumps(data))):
        assert other.resize == data.resize
        assert (other["val"][1].truth == data["val"][1].truth).all()
        assert other["val"].original_shapes == data["val"].original_shapes


def test_values_become_classes_before_they_vote(tmp_path):
    """Eight shades of one class outvote two thirds of another only together."""
    root = write_folder_dataset(tmp_path / "data", size=(32, 32))
    for path in (root / "train/masks").iterdir():
        mask = np.zeros((32, 32), np.uint8)
        mask[:, :16] = 10
        mask[:, 16:] = 200 + np.arange(16 * 32).reshape(32, 16) % 16
        Image.fromarray(mask).save(path)
    for path in (root / "val/masks").iterdir():
        path.write_bytes((root / "train/masks/000.png").read_bytes())
    source = Folder(root=str(root), resize=8, label_map={"0..127": 0, "128..255": 1})
    sample = open_dataset(source)["train"][0]
    assert sample.mask.tolist() == [[0] * 4 + [1] * 4] * 8


def test_classes_that_vanish_are_named(tmp_path):
    root = write_folder_dataset(tmp_path / "data", size=(64, 64), class_names=["ground", "dot"])
    for path in (root / "train/masks").iterdir():
        mask = np.zeros((64, 64), np.uint8)
        mask[1, 1] = 1
        Image.fromarray(mask).save(path)
    notes = open_dataset(Folder(root=str(root), resize=8)).notes
    assert any("dot from 4" in note and "larger data.resize" in note for note in notes)


def test_other_sources_are_resized_too():
    data = open_dataset(Mni152(resize=48))
    assert max(data["val"].shapes[0]) == 48
    assert data["val"][0].truth.shape == data["val"].original_shapes[0] > (48, 48)
