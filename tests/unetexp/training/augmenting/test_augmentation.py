"""Random views: geometry against torchvision, colour against torchvision, and determinism."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from tests.support.data_folders import write_folder_dataset
from unetexp.data import Folder, Split, open_dataset
from unetexp.data.labels import VOID
from unetexp.errors import ConfigError, UnetexpError
from unetexp.models.weights.resolution import Normalization
from unetexp.training.augmenting.augmentation import Augment, jitter_colour, warp
from unetexp.training.batches.train_batches import TrainBatches, augmented
from unetexp.training.config import TrainConfig

PLAIN = {
    "zoom_min": 1,
    "zoom_max": 1,
    "hflip": 0,
    "rotation_deg": 0,
    "brightness": 0,
    "contrast": 0,
}
AS_IT_IS = Normalization((0.0,) * 3, (1.0,) * 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 5, "val": 2}, size=(40, 48), classes=3)
    return open_dataset(Folder(root=str(root)))


def view_of(augment, image, mask, seed=0, epoch=1):
    """One image (C, H, W) and mask (H, W) through the window and the warp."""
    height, width = mask.shape
    view = augment.draw(seed, epoch, 0, height, width)
    side = augment.window_px
    padded = torch.nn.functional.pad(image, (side,) * 4)
    void = torch.nn.functional.pad(mask, (side,) * 4, value=VOID)
    rows = slice(view.top + side, view.top + 2 * side)
    columns = slice(view.left + side, view.left + 2 * side)
    theta = torch.tensor(view.theta)[None]
    return warp(
        padded[None, :, rows, columns], void[None, rows, columns], theta, augment.crop_px
    ), view


def test_without_variation_the_crop_is_the_image_itself():
    image, mask = torch.rand(3, 32, 32), torch.randint(0, 3, (32, 32), dtype=torch.uint8)
    (crop, labels), _ = view_of(Augment(crop_px=32, **PLAIN), image, mask)
    torch.testing.assert_close(crop[0], image, atol=1e-5, rtol=0)
    assert torch.equal(labels[0], mask.long())


def test_a_flip_mirrors_image_and_mask_alike():
    image, mask = torch.rand(3, 32, 32), torch.randint(0, 3, (32, 32), dtype=torch.uint8)
    (crop, labels), _ = view_of(Augment(crop_px=32, **{**PLAIN, "hflip": 1}), image, mask)
    torch.testing.assert_close(crop[0], image.flip(-1), atol=1e-5, rtol=0)
    assert torch.equal(labels[0], mask.flip(-1).long())


@pytest.mark.parametrize("seed", range(5))
def test_rotation_agrees_with_torchvision(seed):
    augment = Augment(crop_px=33, **{**PLAIN, "rotation_deg": 30})
    image = tv.gaussian_blur(torch.rand(3, 33, 33), [9, 9])
    mask = torch.zeros(33, 33, dtype=torch.uint8)
    (crop, _), view = view_of(augment, image, mask, seed)
    angle = math.degrees(math.atan2(view.theta[1][0], view.theta[0][0]))
    reference = tv.rotate(image, angle, interpolation=tv.InterpolationMode.BILINEAR)
    middle = slice(8, 25)
    torch.testing.assert_close(
        crop[0, :, middle, middle], reference[:, middle, middle], atol=2e-3, rtol=0
    )


def test_what_lies_outside_the_image_is_void():
    augment = Augment(crop_px=64, **PLAIN)
    image, mask = torch.ones(1, 20, 30), torch.ones(20, 30, dtype=torch.uint8)
    (crop, labels), _ = view_of(augment, image, mask)
    assert set(labels.unique().tolist()) == {1, VOID}
    assert int((labels == 1).sum()) == 20 * 30
    assert crop[0, 0][labels[0] == VOID].max() < 1e-4


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_stays_inside_an_image_that_has_room_for_it(seed):
    augment = Augment(crop_px=32, rotation_deg=0)
    mask = torch.ones(80, 90, dtype=torch.uint8)
    (_, labels), _ = view_of(augment, torch.ones(1, 80, 90), mask, seed)
    assert (labels == 1).all()


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_colour_agrees_with_torchvision(factor):
    images = torch.rand(2, 3, 16, 16)
    for position, adjust in enumerate(
        (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    ):
        colour = torch.ones(2, 3)
        colour[:, position] = factor
        expected = torch.stack([adjust(image, factor) for image in images])
        torch.testing.assert_close(jitter_colour(images, colour), expected, atol=1e-4, rtol=0)


def test_a_sample_in_an_epoch_is_always_the_same_and_differs_between_epochs():
    augment = Augment()
    assert augment.draw(1, 2, 3, 300, 400) == augment.draw(1, 2, 3, 300, 400)
    views = {
        augment.draw(seed, epoch, i, 300, 400)
        for seed in (1, 2)
        for epoch in (1, 2)
        for i in (1, 2)
    }
    assert len(views) == 8


def test_strength_scales_every_change_but_the_crop_and_the_flips():
    ranges = {"crop_px": 64, "rotation_deg": 10, "zoom_min": 0.8, "zoom_max": 1.25}
    one, two, none = (Augment(**ranges, strength=strength) for strength in (1, 2, 0))
    for index in range(20):
        at = {"seed": 0, "epoch": 1, "index": index, "height": 300, "width": 300}
        views = [augment.draw(**at) for augment in (one, two, none)]
        zooms, angles = zip(
            *(
                _zoom_and_angle(augment, view)
                for augment, view in zip((one, two, none), views, strict=True)
            ),
            strict=True,
        )
        assert math.log(zooms[1]) == pytest.approx(2 * math.log(zooms[0]))
        assert angles[1] == pytest.approx(2 * angles[0])
        assert (zooms[2], angles[2]) == (pytest.approx(1), pytest.approx(0))
        assert views[2].colour == (1.0, 1.0, 1.0)
        for twice, once in zip(views[1].colour, views[0].colour, strict=True):
            assert twice - 1 == pytest.approx(2 * (once - 1))


def _zoom_and_angle(augment, view):
    (a, _, _), (b, _, _) = view.theta  # scale times cosine, times sine, with the flip's sign
    scale = math.hypot(a, b)
    flip = math.copysign(1, a)
    return augment.crop_px / (scale * augment.window_px), math.asin(b * flip / scale)


def test_a_zoom_the_wrong_way_round_is_a_mistake():
    with pytest.raises(ValueError, match="swap"):
        Augment(zoom_min=2, zoom_max=1)
    assert issubclass(ConfigError, ValueError)


class TestBatches:
    config = TrainConfig(augment=Augment(crop_px=32), batch_size=4, accumulation=2)

    def test_each_image_comes_once_an_epoch_and_in_another_order_in_the_next(self, data):
        config = self.config.model_copy(update={"batch_size": 5, "accumulation": 1})
        batches = TrainBatches(data["train"], config)
        orders = [[k for keys in self._keys(batches, epoch) for k in keys] for epoch in (1, 2)]
        assert [sorted(key.sample for key in order) for order in orders] == [list(range(5))] * 2
        assert [key.sample for key in orders[0]] != [key.sample for key in orders[1]]

    def test_a_step_holds_its_micro_batches(self, data):
        batches = TrainBatches(data["train"], self.config)
        assert batches.steps == 1
        assert [len(raw.images) for raw in batches.epoch(1)] == [2, 2]

    def test_a_set_smaller_than_a_batch_repeats(self, data):
        config = self.config.model_copy(update={"batch_size": 12, "accumulation": 1})
        assert [len(raw.images) for raw in TrainBatches(data["train"], config).epoch(1)] == [12]

    @pytest.mark.parametrize("workers", [1, 3])
    def test_workers_change_nothing(self, data, workers):
        alone = list(TrainBatches(data["train"], self.config).epoch(3))
        helped = list(TrainBatches(data["train"], self.config, workers=workers).epoch(3))
        for one, other in zip(alone, helped, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    def test_a_worker_that_hangs_ends_training_and_says_where(self, data, monkeypatch):
        released = threading.Event()
        monkeypatch.setattr(Split, "window", lambda *_: released.wait(30))
        batches = TrainBatches(data["train"], self.config, workers=1, timeout_s=0.2)
        with pytest.raises(UnetexpError, match=f"{data['train'].names[0][:2]}.* within 0.2 s"):
            next(batches.epoch(1))
        released.set()

    def test_model_input_has_the_crops_size(self, data):
        raw = next(TrainBatches(data["train"], self.config).epoch(1))
        images, labels = augmented(raw, data, 32, AS_IT_IS, torch.device("cpu"))
        assert images.shape == (2, data.channels, 32, 32)
        assert images.dtype == torch.float32
        assert labels.shape == (2, 32, 32)
        assert set(labels.unique().tolist()) <= {0, 1, 2, VOID}

    @staticmethod
    def _keys(batches, epoch):
        batches._order.epoch = epoch
        return list(batches._order)
