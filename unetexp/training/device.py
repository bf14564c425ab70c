"""What a device can do: the automatic choices of precision and memory layout."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from unetexp.errors import ConfigError, not_a_choice

if TYPE_CHECKING:
    from unetexp.training.config import TrainConfig


def pick_device(name: str = "auto") -> torch.device:
    """`auto`: the first GPU if there is one, else the CPU. A GPU that is not there: ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", name):
        raise ConfigError(not_a_choice("device", name, ["auto", "cpu", "cuda", "cuda:N"]))
    device, there = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and not there:
        raise ConfigError(f"device {name!r}: torch finds no GPU here. Use cpu, or auto.")
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ConfigError(
            f"device {name!r}: this machine has {there} GPU{'' if there == 1 else 's'}. Use "
            f"cuda:0{'' if there == 1 else f' to cuda:{there - 1}'}, cpu, or auto."
        )
    return device


def computes_in_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether training and validation run under bf16 autocast."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AVX512-BF16 or AMX the CPU emulates bf16, which is slower than fp32.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    """The layout of weights and activations: measured to pay on GPUs, and for slim on CPUs."""
    pays = device.type == "cuda" or config.decoder.kind == "slim"
    if config.memory_format == "channels_last" or (config.memory_format == "auto" and pays):
        return torch.channels_last
    return torch.contiguous_format


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    """The autocast context of a forward pass."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=computes_in_bf16(config, device)
    )
