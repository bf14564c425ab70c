"""Graphs that torch runs: how they are called, on which device, with how many threads.

N batch, C channels, H W image size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetexp.compute.cudnn import full_precision
from unetexp.compute.device import pick_device
from unetexp.errors import ConfigError
from unetexp.runtimes.runtime import Run


def torch_device(device: str) -> torch.device:
    """Where a graph runs; ConfigError for a GPU that is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: torch finds no GPU here. Use cpu, or auto.")
    return pick_device() if device == "auto" else torch.device(device)


def run_with_torch(
    network: Callable[[Tensor], Tensor], device: torch.device, threads: int | None
) -> Run:
    """Arrays in, arrays out; without TF32, as the network is served."""
    if threads is not None:
        torch.set_num_threads(threads)  # torch has one pool of threads for all

    def run(images: NDArray[Any]) -> NDArray[Any]:
        writable = np.require(images, requirements=["C", "W"])  # as torch asks of arrays
        with torch.inference_mode(), full_precision():
            output: NDArray[Any] = network(torch.from_numpy(writable).to(device)).cpu().numpy()
        return np.ascontiguousarray(output)

    return run
