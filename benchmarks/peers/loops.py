"""The train step in other people's loops, plain and tuned, over given tensors.

N batch, K classes, P side of the images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.rounds import timed

LR = 1e-4
_HOPELESS = 3.0  # times the best first step, after which a combination is left


class Batch(NamedTuple):
    """What every arm trains on: normalised images (N, 3, P, P) and labels (N, P, P) int64."""

    images: Tensor
    labels: Tensor


def given_batch(batch: int, px: int, classes: int, device: torch.device) -> Batch:
    """Random images, and labels in blocks of 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, px, px, generator=generator)
    blocks = torch.randint(classes, (batch, math.ceil(px / 8), math.ceil(px / 8)))
    labels = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :px, :px]
    return Batch(images.to(device), labels.contiguous().to(device))


@dataclass(frozen=True)
class Combination:
    """How a step computes; `compile` is a mode of torch.compile or none."""

    precision: str = "fp32"
    memory_format: str = "contiguous"
    compile: str = "none"

    def __str__(self) -> str:
        compiled = "" if self.compile == "none" else f", compiled ({self.compile})"
        return f"{self.precision} {self.memory_format}{compiled}"

    def tree(self) -> dict[str, str]:
        return asdict(self)


PLAIN = Combination()


class Loop:
    """forward, cross-entropy, backward and AdamW on the same batch again and again."""

    def __init__(
        self, model: nn.Module, batch: Batch, how: Combination = PLAIN, *, tuned: bool = False
    ) -> None:
        """`tuned`: fused AdamW and cudnn.benchmark, as their users would set them."""
        self.device, self.how, self.tuned = batch.images.device, how, tuned
        layout = _LAYOUTS[how.memory_format]
        model = model.to(self.device).to(memory_format=layout).train()
        self.images, self.labels = batch.images.contiguous(memory_format=layout), batch.labels
        learning = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=LR, fused=tuned or None)
        self.forward = model if how.compile == "none" else torch.compile(model, mode=how.compile)

    def __call__(self) -> None:
        torch.backends.cudnn.benchmark = self.tuned
        bf16 = self.how.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(self.forward(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


_LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def combinations(device: torch.device) -> list[Combination]:
    """What is worth trying on a device, the likeliest first."""
    layouts = ("channels_last", "contiguous")
    if device.type == "cuda":
        compiled = [Combination("bf16", "channels_last", m) for m in ("default", "reduce-overhead")]
        return [Combination("bf16", layout) for layout in layouts] + compiled
    return [Combination(p, layout) for p in ("fp32", "bf16") for layout in layouts]


def fastest(
    make: Callable[[Combination], Callable[[], None]],
    device: torch.device,
    *,
    steps: int = 2,
    until: float = math.inf,
) -> dict[Combination, float]:
    """Seconds per step of each combination, the fastest first.

    `make` builds a step. After the time `until` (of `time.perf_counter`) no further combination is
    tried. On a CPU one whose first step is hopeless is left out.
    """
    found: dict[Combination, float] = {}
    best_first = math.inf
    for how in combinations(device):
        if found and time.perf_counter() > until:
            break
        step = make(how)
        once = timed(step, 1, device)
        first = once()
        if device.type == "cpu" and first > _HOPELESS * best_first:
            continue
        best_first = min(best_first, first)
        if device.type == "cuda":  # the second call of a compiled step may compile too
            timed(step, 2, device)()
        found[how] = min(once() for _ in range(steps))
        del step, once  # before the next model
    return dict(sorted(found.items(), key=lambda item: item[1]))
