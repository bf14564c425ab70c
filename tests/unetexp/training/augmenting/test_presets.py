"""Augmentation presets: what they fill, what wins, and that image and mask never drift apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unetexp.component import decode
from unetexp.data.decoded.split import Split
from unetexp.data.decoded.split_table import SplitTable
from unetexp.data.labels import VOID
from unetexp.models.weights.resolution import Normalization
from unetexp.training.augmenting.augmentation import Augment
from unetexp.training.augmenting.presets import PRESETS, Preset
from unetexp.training.batches.resident import ResidentSplit
from unetexp.training.batches.train_batches import (
    TrainBatches,
    augmented,
    augmented_together,
    cut_on_device,
)
from unetexp.training.config import TrainConfig, decode_config

NAMES = get_args(Preset)
CPU = torch.device("cpu")
LEVELS = {0: 40, 1: 120, 2: 200}  # the brightness of a label
NO_INTENSITY = {"brightness": 0, "contrast": 0, "gamma": 0, "blur_px": 0, "noise": 0}
SIDE = 96


def split_of(folder, masks, channels=3):
    """A split of images whose brightness tells the mask."""
    levels = np.array([LEVELS.get(label, 0) for label in range(256)], np.uint8)
    images = [np.broadcast_to(levels[mask], (channels, *mask.shape)) for mask in masks]
    (folder / "train.images").write_bytes(b"".join(image.tobytes() for image in images))
    (folder / "train.masks").write_bytes(b"".join(mask.tobytes() for mask in masks))
    counts = sum(np.bincount(mask.reshape(-1), minlength=256) for mask in masks)
    table = SplitTable(
        names=tuple(str(number) for number in range(len(masks))),
        heights=tuple(mask.shape[0] for mask in masks),
        widths=tuple(mask.shape[1] for mask in masks),
        channels=(channels,) * len(masks),
        bits=(8,) * len(masks),
        class_pixels=tuple(counts[:3].tolist()),
        void_pixels=int(counts[VOID]),
    )
    return Split(folder, "train", table, channels, 8)


def blocks(seed, size=(120, 160), labels=(0, 1, 2, VOID)):
    """A mask of large blocks, so that most pixels are far from an edge."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array(labels, np.uint8), (size[0] // 40, size[1] // 40))
    return coarse.repeat(40, axis=0).repeat(40, axis=1)


def views(split, augment, seed=0, epoch=1, on_device=False):
    """Images (N, C, P, P) in 0..1 and labels of one batch."""
    tree = {"batch_size": len(split), "seed": seed, "data": {"kind": "mni152"}}
    config = decode(TrainConfig, tree).model_copy(update={"augment": augment})
    batches = TrainBatches(split, config)
    batch = next(batches.epoch(epoch))
    if on_device:
        keys = next(iter(batches._order))
        rows = batches._windows.views(keys)
        batch = cut_on_device(rows, ResidentSplit(split, CPU), augment.window_px)
    as_it_is = Normalization((0.0,) * split.channels, (1.0,) * split.channels)
    if on_device:
        return augmented_together(batch, 255, augment.crop_px, as_it_is)
    return augmented(batch, SimpleNamespace(image_max=255), augment.crop_px, as_it_is, CPU)


def far_from_edges(labels, reach=6):
    """Where all labels within `reach` are the same, and the crop's border is farther, too."""
    values = torch.nn.functional.pad(labels.float(), (reach,) * 4, value=-1.0).unsqueeze(1)
    largest = torch.nn.functional.max_pool2d(values, 2 * reach + 1, 1)
    least = -torch.nn.functional.max_pool2d(-values, 2 * reach + 1, 1)
    return (largest == least).squeeze(1) & (labels != VOID)


# Image and mask -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", NAMES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_image_and_mask_never_drift_apart(preset, seed, tmp_path_factory):
    split = split_of(tmp_path_factory.mktemp("set"), [blocks(seed), blocks(seed + 1)])
    without = dict.fromkeys(NO_INTENSITY, 0)
    augment = Augment(preset=preset, crop_px=SIDE, **without)
    images, labels = views(split, augment, seed)
    expected = torch.zeros_like(images[:, 0])
    for label, level in LEVELS.items():
        expected[labels == label] = level / 255
    inside = far_from_edges(labels)
    assert inside.any()
    torch.testing.assert_close(images[:, 0][inside], expected[inside], atol=0.02, rtol=0)


@pytest.mark.parametrize("preset", NAMES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), labels=st.sets(st.sampled_from([0, 1, 2]), min_size=1))
def test_labels_are_some_of_those_before_and_void(preset, seed, labels, tmp_path_factory):
    split = split_of(tmp_path_factory.mktemp("set"), [blocks(seed, labels=sorted(labels))])
    _, found = views(split, Augment(preset=preset, crop_px=SIDE, strength=2), seed)
    assert set(found.unique().tolist()) <= labels | {VOID}


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_and_the_same_on_every_device(preset, channels, tmp_path):
    split = split_of(tmp_path, [blocks(seed) for seed in range(6)], channels)
    augment = Augment(preset=preset, crop_px=SIDE, effect_probability=0.5)
    images, labels = views(split, augment)
    assert images.shape == (6, channels, SIDE, SIDE)
    assert images.min() >= 0 and images.max() <= 1
    other, other_labels = views(split, augment, on_device=True)
    # Where a point lies between two pixels of an edge, they may take either.
    assert (labels != other_labels).float().mean() < 2e-3
    assert (images - other).abs().mean() < 2e-3


# What a preset means ------------------------------------------------------------------------------


def test_light_is_what_was_always_done():
    assert Augment() == Augment(preset="light")
    light = PRESETS["light"]
    assert {name: Augment.model_fields[name].default for name in light} == dict(light)


def test_none_is_a_random_crop_alone():
    augment = Augment(preset="none", crop_px=32)
    assert augment.window_px == 33 and not augment.has_effects
    view = augment.draw(0, 1, 2, 90, 90)
    assert view.colour == (1, 1, 1)
    assert (view.theta[0][0], view.theta[0][1]) == (pytest.approx(32 / 33), 0)
    assert (view.top, view.left) != (augment.draw(0, 2, 2, 90, 90).top, view.left)


def test_fields_that_are_set_win_and_strength_stays():
    augment = Augment(preset="strong", rotation_deg=5, elastic=0, strength=0.5)
    assert (augment.rotation_deg, augment.elastic, augment.strength) == (5, 0, 0.5)
    assert augment.zoom_max == PRESETS["strong"]["zoom_max"]


@pytest.mark.parametrize("preset", NAMES)
def test_a_recorded_config_means_the_same(preset):
    config = decode_config({"augment": {"preset": preset, "rotation_deg": 7}})
    assert decode_config(yaml.safe_load(yaml.safe_dump(config.tree()))) == config


def test_a_config_from_before_presets_means_the_same():
    old = {"zoom_min": 0.5, "zoom_max": 1.5, "hflip": 0, "vflip": 0, "rotation_deg": 10}
    new = decode_config({"augment": old}).augment
    assert new.preset == "light" and not new.has_effects
    assert {name: getattr(new, name) for name in old} == old


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_a_search_changes_the_preset_and_leaves_what_was_set(first, second):
    base = decode_config({"augment": {"preset": first, "rotation_deg": 7, "crop_px": 64}})
    changed = decode_config(base.tree(), {"augment.preset": second}).augment
    assert changed == Augment(preset=second, rotation_deg=7, crop_px=64)


def test_a_field_may_be_changed_beside_the_preset():
    changes = {"augment.rotation_deg": 10.0, "augment.preset": "strong"}
    augment = decode_config({}, changes).augment
    assert (augment.rotation_deg, augment.zoom_max) == (10, 2)
