"""The views of `augmentation.py` on a CPU: the same formulas with a third of the passes.

There the time goes into memory. So one sample is done after the other, in buffers that stay in the
cache; only what the view shows of its window is read; and scaling, brightness, contrast and
normalisation, all linear, are one multiplication and one addition between the clamps.

N batch, C channels, S window side, P crop side.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unetexp.data.labels import VOID
from unetexp.models.weights.resolution import Normalization

_LUMA = (0.2989, 0.587, 0.114)  # as in augmentation.py
Line = tuple[float, float, float]  # a coordinate in the image: a * x + b * y + c


def views_on_cpu(
    images: Tensor,
    masks: Tensor,
    theta: Tensor,
    colour: Tensor,
    crop_px: int,
    image_max: int,
    normalization: Normalization,
) -> tuple[Tensor, Tensor]:
    """Windows (N, C, S, S) as stored, masks (N, S, S), theta (N, 2, 3), colour (N, 3).

    Returns what `warp`, `jitter_colour` and `to_input` give, within rounding: model input
    (N, C, P, P) float32 and labels (N, P, P) int64.
    """
    crops = torch.empty((*images.shape[:2], crop_px, crop_px))
    labels = torch.empty((len(images), crop_px, crop_px), dtype=torch.int64)
    for number, lines in enumerate(theta.tolist()):
        columns, line_x = _seen(lines[0], images.shape[-1])
        rows, line_y = _seen(lines[1], images.shape[-1])
        grid = _grid(line_x, line_y, crop_px)
        crop = _sampled(images[number, :, rows, columns].float(), grid, "bilinear")
        shifted = masks[number, rows, columns].float().sub_(VOID)  # outside, 0, means void
        labels[number] = _sampled(shifted.unsqueeze(0), grid, "nearest")[0].add_(VOID)
        factors = colour[number].tolist()
        _recolour(crop, factors, image_max, normalization, crops[number])
    return crops, labels


def _seen(line: Line, side: int) -> tuple[slice, Line]:
    """The part of an axis of the window that the crop shows, and `line` relative to that part."""
    a, b, c = line
    middle, reach = (c + 1) * side / 2, (abs(a) + abs(b)) * side / 2 + 1
    first = min(max(0, math.floor(middle - reach)), side - 1)
    last = max(min(side, math.ceil(middle + reach)), first + 1)
    scale = side / (last - first)
    return slice(first, last), (
        a * scale,
        b * scale,
        (c + 1) * scale - 2 * first / (last - first) - 1,
    )


def _grid(line_x: Line, line_y: Line, side: int) -> Tensor:
    """As F.affine_grid of one image: (1, P, P, 2)."""
    centres = torch.linspace(1 / side - 1, 1 - 1 / side, side)
    grid = torch.empty(1, side, side, 2)
    for axis, (a, b, c) in enumerate((line_x, line_y)):
        torch.add((centres * b + c).unsqueeze(1), centres, alpha=a, out=grid[0, :, :, axis])
    return grid


def _sampled(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(image.unsqueeze(0), grid, mode=mode, align_corners=False)[0]


def _recolour(
    crop: Tensor, colour: list[float], image_max: int, normalization: Normalization, out: Tensor
) -> None:
    """Change `crop` (C, P, P) of stored values in place and write the model's input into `out`."""
    brightness, contrast, saturation = colour
    if brightness > 1:
        crop.clamp_(max=image_max / brightness)
    slope = brightness / image_max
    means = crop.mean(dim=(1, 2)).tolist()
    weights = _LUMA if len(crop) == 3 else (1 / len(crop),) * len(crop)
    grey = slope * sum(weight * mean for weight, mean in zip(weights, means, strict=True))
    slope, shift = slope * contrast, grey * (1 - contrast)
    if len(crop) == 3 and saturation != 1:
        crop.mul_(slope).add_(shift).clamp_(0, 1)
        luma = crop[0] * _LUMA[0] + crop[1] * _LUMA[1] + crop[2] * _LUMA[2]
        torch.lerp(luma.expand_as(crop), crop, saturation, out=crop)
        slope, shift = 1.0, 0.0
    planes = zip(crop, out, normalization.mean, normalization.std, strict=True)
    for plane, target, mean, std in planes:
        torch.add(plane.mul_(slope / std), (shift - mean) / std, out=target)
        target.clamp_(-mean / std, (1 - mean) / std)
