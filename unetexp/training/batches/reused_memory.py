"""Memory of one batch that serves the next ones, once nobody holds a tensor in it.

A large block goes back to the system when it is freed, and the next one costs a page fault for each
4 KB: for a batch of crops more than filling it.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class ReusedMemory(threading.local):
    """One block, of the largest tensor so far, for each thread."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._block = torch.empty(0, dtype=dtype)
        self._lent: weakref.ref[NDArray[Any]] | None = None

    def empty(self, *shape: int) -> Tensor:
        """As torch.empty; in the block of before if no tensor in it is left, else in a new one."""
        size = math.prod(shape)
        held = self._lent is not None and self._lent() is not None
        if held or len(self._block) < size:
            self._block = torch.empty(size, dtype=self._block.dtype)
        lent = self._block[:size].numpy()  # lives as long as any tensor that shares its memory
        self._lent = weakref.ref(lent)
        return torch.from_numpy(lent).view(shape)
