"""How a run computes on its device: precision, layout and compiling, every `auto` resolved."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from unetexp.training.config import TrainConfig

Precision = Literal["bf16", "fp16", "fp32"]
MemoryFormat = Literal["channels_last", "contiguous"]
Compile = Literal["none", "default", "reduce-overhead"]  # as the modes of torch.compile

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.bfloat16}


@dataclass(frozen=True)
class ComputeSettings:
    """The numbers and the layout that a run computes with, and how its steps are compiled."""

    precision: Precision
    memory_format: MemoryFormat
    compile: Compile = "none"

    @property
    def layout(self) -> torch.memory_format:
        """`memory_format` as torch has it."""
        if self.memory_format == "channels_last":
            return torch.channels_last
        return torch.contiguous_format

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        return torch.autocast(
            device.type, dtype=_AUTOCAST[self.precision], enabled=self.precision != "fp32"
        )

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Scales the loss so that fp16 gradients do not vanish; otherwise changes nothing."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")


def resolved(
    config: TrainConfig, device: torch.device, measured: ComputeSettings | None = None
) -> ComputeSettings:
    """The settings of `config`; where they are `auto`, those `measured`, else by a rule."""
    rule = measured or _by_rule(config, device)
    return ComputeSettings(
        rule.precision if config.precision == "auto" else config.precision,
        rule.memory_format if config.memory_format == "auto" else config.memory_format,
        rule.compile if config.compile == "auto" else config.compile,
    )


def _by_rule(config: TrainConfig, device: torch.device) -> ComputeSettings:
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ComputeSettings("bf16" if bf16 else "fp16", "channels_last")
    # Only a CPU with AMX computes faster in bf16; AVX512-BF16 alone does not.
    bf16 = torch.cpu._is_amx_tile_supported()
    narrow = config.decoder.kind in ("slim", "lite")
    layout: MemoryFormat = "channels_last" if narrow else "contiguous"
    return ComputeSettings("bf16" if bf16 else "fp32", layout)
