"""The CPU's views against the batched ones, which are tested against torchvision."""

from __future__ import annotations

import pytest
import torch

from unetexp.models.weights.resolution import Normalization, to_input
from unetexp.training.augmenting.augmentation import Augment, jitter_colour, warp
from unetexp.training.batches.cpu_augmentation import views_on_cpu

CHANGES = {
    "defaults": {},
    "all": {"saturation": 0.5, "brightness": 0.9, "vflip": 0.5},
    "no colour": {"brightness": 0.0, "contrast": 0.0},
    "contrast alone": {"brightness": 0.0, "contrast": 0.9},
}
NUMBER, CROP = 6, 48


def raw(augment, channels, image_max, image_px):
    """Random windows as stored, with their views: what `views_on_cpu` takes first."""
    side = augment.window_px
    images = torch.randint(0, image_max + 1, (NUMBER, channels, side, side))
    masks = torch.randint(0, 3, (NUMBER, side, side), dtype=torch.uint8)
    views = [augment.draw(0, 1, index, image_px, image_px) for index in range(NUMBER)]
    theta = torch.tensor([view.theta for view in views])
    colour = torch.tensor([view.colour for view in views])
    return images.to(torch.uint8 if image_max == 255 else torch.uint16), masks, theta, colour


def normalization_of(channels):
    return Normalization((0.5, 0.4, 0.3, 0.2)[:channels], (0.2, 0.3, 0.25, 0.1)[:channels])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("image_max", [255, 65535])
@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("image_px", [40, 300])
def test_views_equal_the_batched_ones(channels, image_max, changes, image_px):
    augment = Augment(crop_px=CROP, rotation_deg=60, zoom_min=0.4, zoom_max=2, **CHANGES[changes])
    stored, masks, theta, colour = raw(augment, channels, image_max, image_px)
    normalization = normalization_of(channels)
    crops, expected_labels = warp(stored.float() / image_max, masks, theta, CROP)
    expected = to_input(jitter_colour(crops, colour), normalization)
    inputs, labels = views_on_cpu(stored, masks, theta, colour, CROP, image_max, normalization)
    torch.testing.assert_close(inputs, expected, atol=2e-3, rtol=0)
    assert labels.dtype == expected_labels.dtype
    assert (labels != expected_labels).float().mean() < 1e-3  # a tie between two pixels


def test_a_view_depends_on_neither_its_batch_nor_the_threads():
    augment = Augment(crop_px=CROP, rotation_deg=60, zoom_min=0.4, zoom_max=2, saturation=0.5)
    batch, normalization = raw(augment, 3, 255, 90), normalization_of(3)
    together = views_on_cpu(*batch, CROP, 255, normalization)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        for number in reversed(range(NUMBER)):
            one = (part[number : number + 1] for part in batch)
            alone = views_on_cpu(*one, CROP, 255, normalization)
            for part, whole in zip(alone, together, strict=True):
                assert torch.equal(part[0], whole[number])
    finally:
        torch.set_num_threads(threads)
