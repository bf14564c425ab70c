"""Changes of training samples beside view and colour: elastic, gamma, blur, low resolution, noise.

Batched on the images' device, where nothing waits for the host; on the CPU what no sample of the
batch has is left out. Random fields are hashes of each sample's own seed and the place, so that a
sample is the same in any batch, on any device and after a restart.

N batch, C channels, P crop side, G control points along a side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unetexp.compute.on_device import on_host

MOST_ELASTIC, MOST_BLUR_PX, MOST_COARSE = 0.1, 4.0, 4
_CONTROL_POINTS = 5  # with the largest shift neighbours do not change places
_BLUR_RADIUS = 12  # 3 of the largest sigma
_BITS_32 = 0xFFFFFFFF


class Effects(NamedTuple):
    """What is done to one sample; as a row of a tensor (N, 6), in this order."""

    elastic: float = 0.0  # largest shift, share of the crop's side
    gamma: float = 1.0  # exponent
    blur_px: float = 0.0  # sigma
    coarse: float = 1.0  # pixels of a side that become one: 1, 2, 3 or 4
    noise: float = 0.0  # sigma, of images in 0..1
    seed: float = 0.0  # a whole number below 2^24, which float32 holds exactly


UNCHANGED = Effects()


def elastic_shifts(effects: Tensor, crop_px: int) -> Tensor | None:
    """The shifts of a crop's points, (N, P, P, 2) x and y in half crops; None: no point moves.

    Smooth fields (as in Simard et al., 2003) through G x G random shifts, interpolated bicubically.
    """
    if not effects.shape[1] or not _used(effects[:, 0] > 0):
        return None
    points = _CONTROL_POINTS
    shifts = 2 * _uniform(effects[:, 5].long(), 2 * points * points) - 1
    shifts = shifts.view(-1, 2, points, points)
    smooth = F.interpolate(shifts, (crop_px, crop_px), mode="bicubic", align_corners=True)
    return (2 * effects[:, :1, None, None] * smooth.clamp(-1, 1)).permute(0, 2, 3, 1)


def apply_effects(images: Tensor, effects: Tensor) -> Tensor:
    """Images (N, C, P, P) in 0..1 with all effects of the rows (N, 6) but the deformation."""
    if not effects.shape[1]:
        return images
    _, gamma, blur_px, coarse, noise, seed = effects.view(-1, 6, 1, 1, 1).unbind(1)
    if _used(gamma != 1):
        images = torch.where(gamma != 1, _with_gamma(images, gamma), images)
    if _used(blur_px > 0):
        images = torch.where(blur_px > 0, _blurred(images, effects[:, 2]), images)
    for factor in range(2, MOST_COARSE + 1):
        if _used(coarse == factor):
            images = torch.where(coarse == factor, _coarsened(images, factor), images)
    if _used(noise > 0):
        uniform = _uniform(seed.flatten().long() + 2**24, images[0].numel()).view(images.shape)
        images = images + noise * math.sqrt(2) * torch.erfinv(2 * uniform - 1)
    return images.clamp(0, 1)


def _used(where: Tensor) -> bool:
    """Whether an effect must be computed: always, where the host would wait for the answer."""
    return not on_host(where) or bool(where.any())


def _with_gamma(images: Tensor, gamma: Tensor) -> Tensor:
    """The exponent on each image's own range, so that its darkest and brightest values stay."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp(min=1e-6)
    return low + span * ((images - low) / span) ** gamma


def _blurred(images: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur with a sigma (N,) for each image; the borders are mirrored."""
    count, channels = images.shape[:2]
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / sigmas.clamp(min=1e-2).unsqueeze(1)) ** 2)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    planes = F.pad(images, (_BLUR_RADIUS,) * 4, mode="reflect").flatten(0, 1).unsqueeze(0)
    for shape in ((-1, 1, 1, len(offsets)), (-1, 1, len(offsets), 1)):
        planes = F.conv2d(planes, kernels.view(shape), groups=count * channels)
    return planes.view(images.shape)


def _coarsened(images: Tensor, factor: int) -> Tensor:
    """Means over cells of factor x factor pixels, scaled back bilinearly."""
    cells = F.avg_pool2d(images, factor, ceil_mode=True, count_include_pad=False)
    scaled = F.interpolate(cells, scale_factor=factor, mode="bilinear", align_corners=False)
    return scaled[..., : images.shape[2], : images.shape[3]]


def _uniform(seeds: Tensor, count: int) -> Tensor:
    """(N, count) float32 between 0 and 1: hashes of the int64 seeds (N,) and the place."""
    places = torch.arange(count, device=seeds.device)
    bits = seeds.unsqueeze(1) * 0x9E3779B1 + places * 0x85EBCA77
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):  # murmur3's last step
        bits = bits & _BITS_32
        bits = (bits ^ (bits >> shift)) * factor
    return ((bits >> 9) & 0x7FFFFF).float().add_(0.5).div_(2**23)  # exact in float32
