"""The CPU's views against the batched ones, which are tested against torchvision."""

from __future__ import annotations

import pytest
import torch

from unetexp.models.weights.resolution import Normalization, to_input
from unetexp.training.augmentation import Augment, jitter_colour, warp
from unetexp.training.batches.cpu_augmentation import views_on_cpu


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_max", [255, 65535])
@pytest.mark.parametrize("changes", [{}, {"saturation": 0.5, "brightness": 0.9, "vflip": 0.5}])
@pytest.mark.parametrize("image_px", [40, 300])
def test_views_equal_the_batched_ones(channels, image_max, changes, image_px):
    augment = Augment(crop_px=48, rotation_deg=60, zoom_min=0.4, zoom_max=2, **changes)
    normalization = Normalization((0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels])
    side, number = augment.window_px, 6
    images = torch.randint(0, image_max + 1, (number, channels, side, side))
    masks = torch.randint(0, 3, (number, side, side), dtype=torch.uint8)
    views = [augment.draw(0, 1, index, image_px, image_px) for index in range(number)]
    theta = torch.tensor([view.theta for view in views])
    colour = torch.tensor([view.colour for view in views])
    crops, expected_labels = warp(images.float() / image_max, masks, theta, 48)
    expected = to_input(jitter_colour(crops, colour), normalization)
    stored = images.to(torch.uint8 if image_max == 255 else torch.uint16)
    inputs, labels = views_on_cpu(stored, masks, theta, colour, 48, image_max, normalization)
    torch.testing.assert_close(inputs, expected, atol=2e-3, rtol=0)
    assert labels.dtype == expected_labels.dtype
    assert (labels != expected_labels).float().mean() < 1e-3  # a tie between two pixels
