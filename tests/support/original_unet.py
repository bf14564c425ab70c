"""The original `UNetWithResnet50Encoder`, written out as an independent reference for parity.

It has the original's module tree and so its state dict's names; nothing of `unetexp` is used.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn


class ConvBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=1, padding=1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Bridge(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.bridge = nn.Sequential(
            ConvBlock(in_channels, out_channels), ConvBlock(out_channels, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.bridge(x)


class UpBlock(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        up_in_channels: int | None = None,
        up_out_channels: int | None = None,
    ):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(
            up_in_channels or in_channels, up_out_channels or out_channels, kernel_size=2, stride=2
        )
        self.conv_block_1 = ConvBlock(in_channels, out_channels)
        self.conv_block_2 = ConvBlock(out_channels, out_channels)

    def forward(self, up_x: Tensor, down_x: Tensor) -> Tensor:
        x = torch.cat([self.upsample(up_x), down_x], 1)
        return self.conv_block_2(self.conv_block_1(x))


class UNetWithResnet50Encoder(nn.Module):
    def __init__(self, n_classes: int = 2):
        super().__init__()
        conv1, bn1, relu, maxpool, *layers = list(torchvision.models.resnet50().children())[:-2]
        self.input_block = nn.Sequential(conv1, bn1, relu)
        self.input_pool = maxpool
        self.down_blocks = nn.ModuleList(layers)
        self.bridge = Bridge(2048, 2048)
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(2048, 1024),
                UpBlock(1024, 512),
                UpBlock(512, 256),
                UpBlock(128 + 64, 128, up_in_channels=256, up_out_channels=128),
                UpBlock(64 + 3, 64, up_in_channels=128, up_out_channels=64),
            ]
        )
        self.out = nn.Conv2d(64, n_classes, kernel_size=1, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [x]
        x = self.input_block(x)
        skips.append(x)
        x = self.input_pool(x)
        for down_block in self.down_blocks:
            x = down_block(x)
            skips.append(x)
        skips.pop()
        x = self.bridge(x)
        for up_block in self.up_blocks:
            x = up_block(x, skips.pop())
        return self.out(x)
