"""Batches: windows cut on a device equal those of the host, whatever is in the cache."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from unetexp.component import decode
from unetexp.data import Folder, Split, open_dataset
from unetexp.data.decoded.split_table import SplitTable
from unetexp.data.labels import VOID
from unetexp.models.weights.resolution import input_normalization
from unetexp.training.augmenting.augmentation import Augment, drop_channels
from unetexp.training.batches.resident import ResidentSplit, fits, resident_bytes
from unetexp.training.batches.train_batches import TrainBatches, augmented, cut_on_device
from unetexp.training.config import TrainConfig

CPU = torch.device("cpu")
SHAPES = ((40, 48), (17, 90), (64, 31))


def write_split(folder, channels, bits, returned_channels, returned_bits):
    """A split of random images, each stored with its own channels and bits."""
    rng = np.random.default_rng(0)
    images, masks = b"", b""
    for shape, planes, depth in zip(SHAPES, channels, bits, strict=True):
        images += rng.integers(0, 2**depth, (planes, *shape), f"uint{depth}").tobytes()
        masks += rng.integers(0, 3, shape, "uint8").tobytes()
    (folder / "train.images").write_bytes(images)
    (folder / "train.masks").write_bytes(masks)
    table = SplitTable(
        names=("a", "b", "c"),
        heights=tuple(height for height, _ in SHAPES),
        widths=tuple(width for _, width in SHAPES),
        channels=channels,
        bits=bits,
        class_pixels=(1, 1, 1),
        void_pixels=0,
    )
    return Split(folder, "train", table, returned_channels, returned_bits)


STORED = {
    "grey": ((1, 1, 1), (8, 8, 8), 1, 8),
    "rgb": ((3, 3, 3), (8, 8, 8), 3, 8),
    "grey and rgb": ((1, 3, 1), (8, 8, 8), 3, 8),
    "16 bit": ((1, 1, 1), (16, 16, 16), 1, 16),
    "all kinds": ((1, 3, 3), (16, 8, 16), 3, 16),
}
PLACES = [[0, 3, 5], [1, -4, -9], [2, 50, 20], [1, 10, 80], [0, -40, 0], [2, 200, -100], [1, -2, 0]]


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("side", [8, 33, 100])
def test_windows_cut_on_a_device_equal_those_of_the_host(stored, side, tmp_path):
    split = write_split(tmp_path, *STORED[stored])
    images, masks = ResidentSplit(split, CPU).windows(torch.tensor(PLACES), side)
    for place, image, mask in zip(PLACES, images, masks, strict=True):
        expected_image, expected_mask = split.window(*place, side, side)
        assert image.dtype == expected_image.dtype
        assert torch.equal(image.int(), expected_image.int())
        assert torch.equal(mask, expected_mask)


def test_a_window_is_the_image_with_zeros_and_void_around_it(tmp_path):
    split = write_split(tmp_path, *STORED["all kinds"])
    image, mask = split[1].image.int(), split[1].mask
    expected = torch.nn.functional.pad(image, (5, 5, 7, 7))
    void = torch.nn.functional.pad(mask, (5, 5, 7, 7), value=VOID)
    # Into memory that has held something else.
    kept = (torch.full((3, 31, 100), 9, dtype=torch.uint16), torch.full((31, 100), 9).byte())
    split.window(1, -7, -5, 31, 100, kept)
    assert torch.equal(kept[0].int(), expected)
    assert torch.equal(kept[1], void)
    assert int(image.max()) > 255  # 8 bit was scaled to 16


def test_memory_on_the_device_is_counted(tmp_path):
    split = write_split(tmp_path, *STORED["all kinds"])
    resident = ResidentSplit(split, CPU)
    kept = resident._images.nbytes + resident._masks.nbytes
    assert resident_bytes(split) == kept
    assert not fits(split, CPU)  # there the memory map serves


def test_a_batch_cut_on_the_device_equals_the_hosts(tmp_path):
    write_folder_dataset(tmp_path, splits={"train": 5, "val": 2}, size=(40, 48), classes=3)
    split = open_dataset(Folder(root=str(tmp_path)))["train"]
    config = TrainConfig(augment=Augment(crop_px=32), batch_size=4, accumulation=2)
    batches = TrainBatches(split, config)
    resident = ResidentSplit(split, CPU)
    for keys, host in zip(list(batches._order), batches.epoch(0), strict=True):
        views = batches._windows.views(keys)
        there = cut_on_device(views, resident, config.augment.window_px)
        assert all(torch.equal(one, other) for one, other in zip(there, host, strict=True))
        for (epoch, index, _), theta, colour in zip(keys, host.theta, host.colour, strict=True):
            view = config.augment.draw(config.seed, epoch, index, *split.shapes[index])
            assert torch.equal(theta, torch.tensor(view.theta))
            assert torch.equal(colour, torch.tensor(view.colour))


def test_cutting_windows_does_not_wait_for_a_gpu(tmp_path):
    """On a pretend GPU every read of a value raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    split = write_split(tmp_path, *STORED["all kinds"])
    resident = ResidentSplit(split, CPU)
    with FakeTensorMode(allow_non_fake_inputs=True):
        cuda = torch.device("cuda")
        for name in ("_images", "_masks", "_table"):
            there = getattr(resident, name)
            setattr(resident, name, torch.empty(there.shape, dtype=there.dtype, device=cuda))
        views = torch.zeros(2, 12, dtype=torch.float64, device=cuda)
        batch = cut_on_device(views, resident, 16)
    assert batch.images.shape == (2, 3, 16, 16)
    assert all(part.device.type == "cuda" for part in batch)


def test_an_epoch_of_more_steps_repeats_the_images_with_other_views(tmp_path):
    split = write_split(tmp_path, *STORED["rgb"])
    config = TrainConfig(augment=Augment(crop_px=32), batch_size=2, min_steps=2 * len(split))
    batches = TrainBatches(split, config)
    keys = [key for keys in batches._order for key in keys]
    assert batches.steps == 2 * len(split)
    assert len(set(keys)) == len(keys) == 4 * len(split)
    seen = [key.sample for key in keys]
    assert all(seen.count(sample) == 4 for sample in range(len(split)))
    views = batches._windows.views(keys)
    assert len(views[:, 1:].unique(dim=0)) == len(keys)
    few = TrainBatches(split, TrainConfig(augment=Augment(crop_px=32), batch_size=2))
    usual = [key for keys in few._order for key in keys]
    assert usual == keys[: len(usual)]


class TestModalityDropout:
    def test_one_channel_of_a_sample_or_none_and_the_same_again(self):
        augment = Augment(modality_dropout=0.5)
        drawn = [augment.draw_dropped(1, 2, index, 3) for index in range(600)]
        assert {*drawn} == {None, 0, 1, 2}
        assert 0.4 < sum(channel is None for channel in drawn) / len(drawn) < 0.6
        assert drawn == [augment.draw_dropped(1, 2, index, 3) for index in range(600)]
        assert drawn != [augment.draw_dropped(1, 3, index, 3) for index in range(600)]
        assert augment.draw_dropped(1, 2, 0, 3, again=1) in {None, 0, 1, 2}

    def test_images_of_one_channel_keep_it(self):
        assert Augment(modality_dropout=1).draw_dropped(1, 2, 3, 1) is None

    def test_the_view_is_that_without_it(self):
        with_it, without = Augment(modality_dropout=1), Augment()
        assert with_it.draw(1, 2, 3, 90, 90) == without.draw(1, 2, 3, 90, 90)

    def test_the_channel_is_its_mean(self):
        inputs = torch.randn(3, 2, 4, 4)
        out = drop_channels(inputs, torch.tensor([[-1.0], [0.0], [1.0]]))
        assert torch.equal(out[0], inputs[0])
        assert not out[1, 0].any() and torch.equal(out[1, 1], inputs[1, 1])
        assert not out[2, 1].any() and torch.equal(out[2, 0], inputs[2, 0])

    @pytest.mark.parametrize("device", ["host", "resident"])
    def test_whole_batches_come_with_it(self, device, tmp_path):
        split = write_split(tmp_path, *STORED["rgb"])
        tree = {"batch_size": 3, "augment": {"crop_px": 16, "modality_dropout": 1.0}}
        config = decode(TrainConfig, {**tree, "data": {"kind": "mni152"}})
        batches = TrainBatches(split, config)
        if device == "resident":
            batches._resident = ResidentSplit(split, CPU)
        (batch,) = batches.epoch(1)
        data = SimpleNamespace(image_max=255)
        inputs, _ = augmented(batch, data, 16, input_normalization(config.encoder, 3), CPU)
        missing = (inputs == 0).all(dim=(2, 3))
        assert missing.sum(dim=1).tolist() == [1, 1, 1]
        assert missing.int().argmax(dim=1).tolist() == batch.colour[:, 3].tolist()
