"""The views of `augmentation.py` on a CPU: the same formulas with a third of the passes.

There the time goes into memory. So one sample is done after the other, in buffers that stay in the
cache; only what the view shows of its window is read; scaling, brightness, contrast and
normalisation, all linear, are one pass; and what leaves no value outside 0..1 is not clamped.

N batch, C channels, S window side, P crop side.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unetexp.data.labels import VOID
from unetexp.models.weights.resolution import Normalization, to_input
from unetexp.training.augmenting.augmentation import jitter_colour
from unetexp.training.augmenting.effects import UNCHANGED, apply_effects, elastic_shifts
from unetexp.training.batches.reused_memory import ReusedMemory

_LUMA = (0.2989, 0.587, 0.114)  # as in augmentation.py
_CROPS, _LABELS = ReusedMemory(torch.float32), ReusedMemory(torch.int64)
Line = tuple[float, float, float]  # a coordinate in the image: a * x + b * y + c


def views_on_cpu(
    images: Tensor,
    masks: Tensor,
    theta: Tensor,
    colour: Tensor,
    crop_px: int,
    image_max: int,
    normalization: Normalization,
    effects: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Windows (N, C, S, S) as stored, masks (N, S, S), theta (N, 2, 3), colour (N, 3).

    `effects` (N, 6 or 0). Returns what `warp`, `jitter_colour`, `apply_effects` and `to_input`
    give, within rounding: model input (N, C, P, P) float32 and labels (N, P, P) int64.
    """
    crops = _CROPS.empty(*images.shape[:2], crop_px, crop_px)
    labels = _LABELS.empty(len(images), crop_px, crop_px)
    points = torch.empty((crop_px, crop_px), dtype=torch.complex64)
    floats = torch.empty(images[0].numel())
    effects = images.new_empty((len(images), 0)) if effects is None else effects
    for number, lines in enumerate(theta.tolist()):
        own = effects[number : number + 1]
        shifts = elastic_shifts(own, crop_px)
        reach = 1.0 if shifts is None else 1 + float(shifts.abs().max())
        columns, line_x = _seen(lines[0], images.shape[-1], reach)
        rows, line_y = _seen(lines[1], images.shape[-1], reach)
        grid = _grid(line_x, line_y, points)
        if shifts is not None:
            grid += shifts @ torch.tensor((line_x[:2], line_y[:2])).T
        crop = _sampled(_in_floats(images[number, :, rows, columns], floats), grid, "bilinear")
        shifted = _in_floats(masks[number, None, rows, columns], floats)
        shifted.sub_(VOID)  # so that the padding's 0 means void
        labels[number] = _sampled(shifted, grid, "nearest")[0].add_(VOID)
        if _is_changed(own):
            whole = jitter_colour(crop.unsqueeze(0) / image_max, colour[number])
            crops[number] = to_input(apply_effects(whole, own), normalization)[0]
        else:
            _recolour(crop, colour[number].tolist(), image_max, normalization, crops[number])
    return crops, labels


def _is_changed(effects: Tensor) -> bool:
    """Whether a sample's row (1, 6) holds more than a deformation; (1, 0) holds nothing."""
    return effects.shape[1] > 0 and effects[0, 1:5].tolist() != list(UNCHANGED[1:5])


def _seen(line: Line, side: int, beyond: float) -> tuple[slice, Line]:
    """The part of an axis of the window that the crop shows, and `line` relative to that part.

    `beyond`: how far the crop's points lie from its centre, in half crops.
    """
    a, b, c = line
    middle, reach = (c + 1) * side / 2, (abs(a) + abs(b)) * beyond * side / 2 + 1
    first = min(max(0, math.floor(middle - reach)), side - 1)
    last = max(min(side, math.ceil(middle + reach)), first + 1)
    scale = side / (last - first)
    return slice(first, last), (
        a * scale,
        b * scale,
        (c + 1) * scale - 2 * first / (last - first) - 1,
    )


def _grid(line_x: Line, line_y: Line, points: Tensor) -> Tensor:
    """As F.affine_grid of one image: (1, P, P, 2), in the memory of `points`, (P, P) complex.

    As complex numbers x and y are written side by side in one pass.
    """
    side = len(points)
    centres = torch.linspace(1 / side - 1, 1 - 1 / side, side)
    (ax, bx, cx), (ay, by, cy) = line_x, line_y
    along = torch.complex(centres * ax, centres * ay)
    down = torch.complex(centres * bx + cx, centres * by + cy)
    return torch.view_as_real(torch.add(down.unsqueeze(1), along, out=points)).unsqueeze(0)


def _in_floats(pixels: Tensor, memory: Tensor) -> Tensor:
    """`pixels` as float32, contiguous, in `memory` (flat)."""
    return memory[: pixels.numel()].view(pixels.shape).copy_(pixels)


def _sampled(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(image.unsqueeze(0), grid, mode=mode, align_corners=False)[0]


def _recolour(
    crop: Tensor, colour: list[float], image_max: int, normalization: Normalization, out: Tensor
) -> None:
    """Change `crop` (C, P, P) of stored values in place and write the model's input into `out`."""
    brightness, contrast, saturation = colour
    if brightness > 1:
        crop.clamp_(max=image_max / brightness)
    slope, shift = brightness / image_max, 0.0
    if contrast != 1:
        means = crop.mean(dim=(1, 2)).tolist()
        weights = _LUMA if len(crop) == 3 else (1 / len(crop),) * len(crop)
        grey = slope * sum(weight * mean for weight, mean in zip(weights, means, strict=True))
        slope, shift = slope * contrast, grey * (1 - contrast)
    strongest = contrast
    if len(crop) == 3 and saturation != 1:
        crop.mul_(slope).add_(shift).clamp_(0, 1)
        luma = crop[0] * _LUMA[0] + crop[1] * _LUMA[1] + crop[2] * _LUMA[2]
        torch.lerp(luma.expand_as(crop), crop, saturation, out=crop)
        slope, shift, strongest = 1.0, 0.0, saturation
    planes = zip(crop, out, normalization.mean, normalization.std, strict=True)
    for plane, target, mean, std in planes:
        torch.add(torch.tensor((shift - mean) / std), plane, alpha=slope / std, out=target)
        if strongest > 1:  # else it is between values of 0..1
            target.clamp_(-mean / std, (1 - mean) / std)
