"""Crops that show a rare class as often as was asked, and are otherwise crops like others."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetexp.data import Folder, open_dataset
from unetexp.data.labels import VOID
from unetexp.models.weights.resolution import Normalization
from unetexp.training.augmenting.augmentation import Augment
from unetexp.training.batches.rare_crops import RareCrops
from unetexp.training.batches.train_batches import TrainBatches, augmented
from unetexp.training.config import decode_config

CPU = torch.device("cpu")
SIDE, CROP = 200, 48
IMAGES = 16


def write_set(root):
    """Every image but the last has one 5 x 5 square of class 1, anywhere; two have class 2, too."""
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 2)):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            row, column = rng.integers(0, SIDE - 5, 2)
            if number == 0:
                row, column = 0, SIDE - 5  # in a corner
            if number != IMAGES - 1:
                mask[row : row + 5, column : column + 5] = 1
            if number < 2:
                mask[90:96, 90:92] = 2
            Image.fromarray(mask * 100).save(root / split / "images" / f"{number:02d}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number:02d}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("rare")
    write_set(root)
    return open_dataset(Folder(root=str(root)))


def labels_of(data, epochs=6, **augment):
    """(N, P, P) labels of all crops of some epochs."""
    tree = {"augment": {"crop_px": CROP, **augment}, "batch_size": IMAGES}
    batches = TrainBatches(data["train"], decode_config(tree))
    as_it_is = Normalization((0.0,), (1.0,))
    return torch.cat(
        [
            augmented(raw, SimpleNamespace(image_max=255), CROP, as_it_is, CPU)[1]
            for epoch in range(epochs)
            for raw in batches.epoch(epoch)
        ]
    )


def share_with_rare(labels):
    return ((labels == 1) | (labels == 2)).any(dim=(1, 2)).float().mean().item()


@pytest.mark.parametrize("preset", ["none", "light", "strong", "medical"])
def test_every_crop_of_an_image_with_a_rare_class_shows_it(preset, data):
    labels = labels_of(data, preset=preset, rare_crop=1)
    assert share_with_rare(labels) == pytest.approx((IMAGES - 1) / IMAGES, abs=0.011)


def test_as_many_crops_show_it_as_was_asked(data):
    usual = share_with_rare(labels_of(data, epochs=20))
    for asked in (0.3, 0.7):
        expected = asked * (IMAGES - 1) / IMAGES + (1 - asked) * usual
        found = share_with_rare(labels_of(data, epochs=20, rare_crop=asked))
        assert found == pytest.approx(expected, abs=0.08)


def test_classes_are_drawn_in_inverse_frequency(data):
    crops = RareCrops(data["train"], 1.0, seed=0)
    drawn = []
    for epoch in range(400):
        row, column = crops.place(epoch, 0, 0)
        drawn.append(int(data["train"][0].mask[int(row), int(column)]))
    pixels = data["train"].class_pixels
    expected = pixels[1] / (pixels[1] + pixels[2])  # 1 / n2 over 1 / n1 + 1 / n2
    assert np.mean(np.array(drawn) == 2) == pytest.approx(expected, abs=0.05)
    assert set(drawn) == {1, 2}


def test_an_image_without_a_rare_class_has_a_usual_crop(data):
    assert RareCrops(data["train"], 1.0, seed=0).place(1, IMAGES - 1, 0) is None


def test_the_place_is_always_the_same_and_another_in_the_next_epoch(data):
    one, other = (RareCrops(data["train"], 0.9, seed=3) for _ in range(2))
    keys = [(epoch, index, again) for epoch in range(5) for index in range(9) for again in (0, 1)]
    places = [one.place(*key) for key in keys]
    assert [other.place(*key) for key in reversed(keys)] == places[::-1]
    assert len(set(places)) > len(places) / 3


def test_zoom_rotation_flip_and_colour_are_those_without_it():
    augment = Augment()
    usual, around = augment.draw(1, 2, 3, 400, 400), augment.draw(1, 2, 3, 400, 400, around=(9, 9))
    assert usual.colour == around.colour
    for one, other in zip(usual.theta, around.theta, strict=True):
        assert one[:2] == other[:2]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    rotation=st.floats(0, 180),
)
def test_a_crop_shows_the_point_that_it_is_laid_around(seed, size, place, rotation):
    augment = Augment(crop_px=64, rotation_deg=rotation)
    point = tuple(part * extent for part, extent in zip(place, size, strict=True))
    view = augment.draw(seed, 1, 0, *size, around=point)
    theta, side = np.array(view.theta), augment.window_px
    # The point in the window's coordinates, x before y, and then in the crop's.
    inside = [2 * (point[1] - view.left) / side - 1, 2 * (point[0] - view.top) / side - 1]
    seen = np.linalg.solve(theta[:, :2], inside - theta[:, 2])
    assert np.abs(seen).max() <= 1


def test_void_is_no_rare_class(tmp_path):
    write_set(tmp_path)
    for path in (tmp_path / "train" / "masks").glob("*.png"):
        mask = np.array(Image.open(path))
        mask[:20] = VOID
        Image.fromarray(mask).save(path)
    split = open_dataset(Folder(root=str(tmp_path)))["train"]
    crops = RareCrops(split, 1.0, seed=0)
    for index in range(len(split)):
        place = crops.place(1, index, 0)
        assert place is None or split[index].mask[int(place[0]), int(place[1])] in (1, 2)
