"""The U-Nets of others: the original repository's and segmentation_models_pytorch's.

N batch, C channels, K classes, H W image size (multiples of 32).
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.support.original_unet import UNetWithResnet50Encoder

SMP = "segmentation_models_pytorch"
HOW_TO_INSTALL = "pip install 'unetexp[bench]'"
WIDTHS = (256, 128, 64, 32, 16)  # smp's default, and those of our slim decoder

original_unet = UNetWithResnet50Encoder


def smp_version() -> str | None:
    """The installed version of segmentation_models_pytorch."""
    try:
        return version(SMP)
    except PackageNotFoundError:
        return None


def smp_unet(classes: int) -> nn.Module:
    """`smp.Unet("resnet50", encoder_weights=None)`, or the same rebuilt where it is missing."""
    if smp_version() is None:
        return RebuiltUnet(classes)
    import segmentation_models_pytorch as smp  # it takes seconds to import

    return smp.Unet("resnet50", encoder_weights=None, classes=classes)


def smp_name() -> str:
    """What the tables call `smp_unet`."""
    installed = smp_version()
    return f"{SMP} {installed}" if installed else f"{SMP}'s Unet, rebuilt"


def about_smp() -> str | None:
    """What to tell the user if segmentation_models_pytorch is missing."""
    if smp_version():
        return None
    return (
        f"{SMP} is not installed ({HOW_TO_INSTALL}): its Unet is rebuilt from torchvision's "
        "ResNet-50, with the same weights and logits (tests/benchmarks/test_peers.py)."
    )


class RebuiltUnet(nn.Module):
    """smp's Unet on a ResNet-50, with the names of its state dict; no code of smp is used."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = torchvision.models.resnet50()
        del self.encoder.fc, self.encoder.avgpool
        self.decoder = nn.Module()
        skips = (1024, 512, 256, 64, 0)
        self.decoder.blocks = nn.ModuleList(
            _Block(below + skip, width)
            for below, skip, width in zip((2048, *WIDTHS), skips, WIDTHS, strict=False)
        )
        self.segmentation_head = nn.Sequential(nn.Conv2d(WIDTHS[-1], classes, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, K, H, W)."""
        encoder = self.encoder
        features = [encoder.relu(encoder.bn1(encoder.conv1(image)))]
        deep = encoder.maxpool(features[0])
        for stage in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
            deep = stage(deep)
            features.append(deep)
        feature = features.pop()
        for block in self.decoder.blocks:
            feature = F.interpolate(feature, scale_factor=2, mode="nearest")
            if features:
                feature = torch.cat([feature, features.pop()], dim=1)
            feature = block(feature)
        return self.segmentation_head(feature)


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels)
        self.conv2 = _convolution(out_channels, out_channels)

    def forward(self, feature: Tensor) -> Tensor:
        return self.conv2(self.conv1(feature))


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


_STAGES = ("stem", "stage1", "stage2", "stage3", "all")


def freeze_as_users_do(model: nn.Module, level: str) -> None:
    """`requires_grad = False` up to and including `level`, batch norm left in train mode."""
    parts = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    frozen = parts[: _STAGES.index(level) + 1] if level != "none" else []
    for name in (name for part in frozen for name in part):
        model.encoder.get_submodule(name).requires_grad_(False)
