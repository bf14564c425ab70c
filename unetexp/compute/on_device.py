"""Values that stay on their device, so that the host does not wait for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST = 256
_constants: dict[tuple[tuple[float, ...], torch.dtype, torch.device], Tensor] = {}


def on_host(values: Tensor) -> bool:
    """Whether the host can look at `values` without waiting for another device."""
    return values.device.type == "cpu"


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """`values` (len(values),) in the type and on the device of `like`; not to be changed.

    Filled there and kept: a copy from the host would wait for the device's queue.
    """
    key = (values, like.dtype, like.device)
    plain = type(like) is Tensor  # a tracer's stand-ins cannot be used outside of it
    if plain and key in _constants:
        return _constants[key]
    with torch.inference_mode(False):  # or training could not use what validation has made
        made = torch.cat([torch.full((1,), v, dtype=key[1], device=key[2]) for v in values])
    if plain and type(made) is Tensor:
        if len(_constants) >= _MOST:
            _constants.clear()
        _constants[key] = made
    return made
