"""The preflight on photographs: what validation takes, and a word where memory will not suffice."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sweeps.preflight import preflight as preflight_module
from sweeps.preflight.step_cost import StepCost, measure_step_cost
from tests.support.data_folders import write_folder_dataset
from unetexp.data import Folder, open_dataset
from unetexp.models.factory import create_segmentation_model
from unetexp.training.batches.whole_images import Limits
from unetexp.training.config import decode_config

GIB = 2**30
CONFIG = {
    "encoder": {"name": "resnet18", "weights": "none"},
    "decoder": {"kind": "slim"},
    "augment": {"crop_px": 32},
    "batch_size": 2,
    "data": {"kind": "mni152"},
}


def split_of(shapes, originals=None):
    extra = {"original_shapes": originals} if originals else {}
    return SimpleNamespace(shapes=shapes, **extra)


@pytest.fixture(scope="module")
def limits():
    return Limits.of(create_segmentation_model(3, False, encoder="resnet18", decoder="slim"), 3)


def test_the_largest_images_count_whatever_their_number(limits):
    small, large = (375, 500), (3000, 4000)
    batch, needed = limits.fullest(split_of([small] * 40 + [large]))
    assert batch == [40]
    assert GIB < needed < 2 * GIB  # two passes of at most a gigabyte, and what is held
    assert limits.fullest(split_of([small] * 40))[1] < needed


def test_the_original_size_of_scaled_images_counts(limits):
    working, own = (768, 1024), (3000, 4000)
    plain = limits.fullest(split_of([working]))[1]
    scaled = limits.fullest(split_of([working], [own]))[1]
    assert 8 * 12e6 < scaled - plain < GIB / 4


def test_the_time_of_scaling_back_is_measured(tmp_path):
    root = write_folder_dataset(tmp_path, {"train": 2, "val": 1}, size=(600, 800))
    data = open_dataset(Folder(root=str(root), resize=32))
    found = measure_step_cost(decode_config(CONFIG), data, torch.device("cpu"), 2, 5)
    assert found.val_s > 0 and found.micro_batch == 2


@pytest.mark.parametrize(("free_gib", "told"), [(3, True), (5, False)])
def test_too_little_memory_is_told_with_the_mend(monkeypatch, free_gib, told):
    checks = preflight_module.DeviceChecks([], StepCost(2, 1.0, 1.0, 4 * GIB, None))
    monkeypatch.setattr(preflight_module, "available_memory_bytes", lambda: free_gib * GIB)
    said = []
    preflight_module._tell_shortages(checks, decode_config(CONFIG), 2, 1, said.append)
    assert bool(said) == told
    if told:
        assert "4.0 GiB" in said[0] and "--set data.resize=1024" in said[0]
