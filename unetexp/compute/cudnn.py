"""cuDNN's switches, which are global: set for a block, and then as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def without_benchmark() -> Iterator[None]:
    """No search for the fastest convolution: each new image size would start another one."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def full_precision() -> AbstractContextManager[None]:
    """Convolutions in full fp32, without TF32 and without a search for the fastest."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
