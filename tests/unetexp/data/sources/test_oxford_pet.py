"""Oxford-IIIT Pet from an existing folder, and without a network."""

import socket
import time

import numpy as np
import pytest
from PIL import Image

from tests.support.data_folders import write_pets
from unetexp.data import OxfordPet, open_dataset
from unetexp.data.sources import oxford_pet
from unetexp.errors import DataError


def test_trimaps_become_background_pet_border(tmp_path):
    root = write_pets(tmp_path)
    data = open_dataset(OxfordPet(root=str(root)))
    assert data.class_names == ("background", "pet", "border")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 4,
        "val": 1,
        "test": 2,
    }
    trimaps = root / "oxford-iiit-pet/annotations/trimaps"
    trimap = np.asarray(Image.open(trimaps / f"{data['test'].names[0]}.png"))
    expected = np.select([trimap == 1, trimap == 2, trimap == 3], [1, 0, 2])
    np.testing.assert_array_equal(data["test"][0].mask, expected)


def test_jpg_files_that_are_not_jpeg_are_read_as_rgb(tmp_path):
    root = write_pets(tmp_path)
    path = root / "oxford-iiit-pet/images/test_0.jpg"
    Image.open(path).convert("P").save(path, format="GIF")
    assert open_dataset(OxfordPet(root=str(root)))["test"][0].image.shape == (3, 20, 24)


@pytest.mark.parametrize("missing", ["images/test_0.jpg", "annotations/test.txt"])
def test_an_incomplete_download_is_named(tmp_path, missing):
    root = write_pets(tmp_path)
    (root / "oxford-iiit-pet" / missing).unlink()
    with pytest.raises(DataError, match=missing):
        open_dataset(OxfordPet(root=str(root)))


@pytest.mark.parametrize("answers", ["refuses", "accepts and stays silent"])
def test_without_a_network_it_fails_soon_and_says_what_to_do(tmp_path, monkeypatch, answers):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers != "refuses":
            server.listen()
        monkeypatch.setattr(oxford_pet, "SITE", f"http://127.0.0.1:{server.getsockname()[1]}/x")
        monkeypatch.setattr(oxford_pet, "PATIENCE_S", 1.0)
        start = time.monotonic()
        with pytest.raises(DataError, match="cannot be downloaded") as error:
            open_dataset(OxfordPet(root=str(tmp_path / "pets")))
    assert time.monotonic() - start < 5
    assert str(tmp_path / "pets/oxford-iiit-pet") in str(error.value)
    assert not (tmp_path / "pets").exists()
