"""The U-Net written plainly, as an independent reference: no layout, no folding, no products.

It has our module tree and so our state dict's names; nothing of `unetexp` is used. An image is
padded by indexing, frozen parts are run like the others with batch norm in eval mode.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torchvision
from torch import Tensor, nn

PARTS = {"stem": ("conv1", "bn1"), "stage1": ("layer1",), "stage2": ("layer2",)}
PARTS |= {"stage3": ("layer3",), "all": ("layer4",)}


def frozen_parts(level: str) -> list[str]:
    levels = ["none", *PARTS]
    return [part for name in levels[1 : levels.index(level) + 1] for part in PARTS[name]]


def _conv_block(given: int, made: int) -> nn.Sequential:
    block = nn.Sequential()
    block.add_module("conv", nn.Conv2d(given, made, 3, padding=1, bias=False))
    block.add_module("bn", nn.BatchNorm2d(made))
    block.add_module("relu", nn.ReLU())
    return block


def _upsample(kind: str, given: int, made: int) -> nn.Module:
    if kind == "conv_transpose":
        return nn.ConvTranspose2d(given, made, 2, stride=2)
    if kind == "pixel_shuffle":
        return nn.Sequential(nn.Conv2d(given, 4 * made, 1), nn.PixelShuffle(2))
    return nn.Sequential(nn.Conv2d(given, made, 1), nn.Upsample(scale_factor=2, mode=kind))


class _UpBlock(nn.Module):
    def __init__(self, below: int, skip: int, made: int, upsampling: str) -> None:
        super().__init__()
        self.upsample = _upsample(upsampling, below, made)
        self.conv_block_1 = _conv_block(made + skip, made)
        self.conv_block_2 = _conv_block(made, made)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([self.upsample(deep), skip], dim=1)
        return self.conv_block_2(self.conv_block_1(joined))


class PlainUNet(nn.Module):
    """(N, channels, H, W) -> (N, classes, H, W)."""

    def __init__(
        self, encoder: str, decoder: str, upsampling: str, channels: int, classes: int
    ) -> None:
        super().__init__()
        self.encoder = torchvision.models.get_model(encoder)
        deepest = self.encoder.fc.in_features
        del self.encoder.fc, self.encoder.avgpool
        self.encoder.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bridge = nn.Sequential()
        widths = (256, 128, 64, 32, 16)
        if decoder == "classic":
            widths = tuple(deepest // 2**step for step in range(1, 6))
            self.bridge.extend(_conv_block(deepest, deepest) for _ in range(2))
        skips = (deepest // 2, deepest // 4, deepest // 8, 64, channels)
        self.up_blocks = nn.ModuleList(
            _UpBlock(below, skip, made, upsampling)
            for below, skip, made in zip((deepest, *widths[:-1]), skips, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], classes, 1)
        self.frozen: Iterable[str] = ()

    def freeze(self, level: str) -> None:
        self.frozen = frozen_parts(level)
        for name in self.frozen:
            self.encoder.get_submodule(name).requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        for name in self.frozen:
            self.encoder.get_submodule(name).eval()
        height, width = image.shape[-2:]
        rows = torch.arange(-(-height // 32) * 32).clamp(max=height - 1)
        columns = torch.arange(-(-width // 32) * 32).clamp(max=width - 1)
        padded = image[:, :, rows][..., columns]
        resnet = self.encoder
        features = [padded, resnet.relu(resnet.bn1(resnet.conv1(padded)))]
        features.append(resnet.layer1(resnet.maxpool(features[-1])))
        for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
            features.append(stage(features[-1]))
        feature = self.bridge(features.pop())
        for block in self.up_blocks:
            feature = block(feature, features.pop())
        return self.head(feature)[..., :height, :width]
