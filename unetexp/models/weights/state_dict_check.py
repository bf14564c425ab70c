"""Checking a state dict against what a model needs, with messages that name the differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from unetexp.errors import CheckpointError, listed

_SHOWN = 3


def check_state_dict(
    tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size], source: str
) -> None:
    """Raise CheckpointError unless the tensors have exactly the `expected` names and shapes.

    Batch norm's `num_batches_tracked` may be missing, as in files older than torch 0.4.1. `source`
    names the origin of the tensors in messages.
    """
    missing = [n for n in expected if n not in tensors and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in expected]
    reshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name])}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name]
    ]
    faults = [
        f"{len(names)} {what}: {listed(names, _SHOWN)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    if faults:
        fitting = sum(n in tensors and tensors[n].shape == expected[n] for n in expected)
        raise CheckpointError(
            f"{source}: the tensors do not fit the model: {fitting} of its {len(expected)} tensors "
            f"match. {'; '.join(faults)}. Give the state dict of the same architecture."
        )


def as_tensors(state: object, source: str) -> Mapping[str, Tensor]:
    """`state` if it is a mapping of names to tensors; CheckpointError says how to get one."""
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{source}: a {type(state).__name__} is not a state dict. "
            "Save model.state_dict(), not the model."
        )
    others = [
        str(name)
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if others:
        nested = [name for name in others if isinstance(state.get(name), Mapping)]
        advice = f" Take the state dict out of it: checkpoint[{nested[0]!r}]." if nested else ""
        raise CheckpointError(
            f"{source}: a state dict maps names to tensors, but these are not tensors: "
            f"{listed(others, _SHOWN)}.{advice}"
        )
    return cast(Mapping[str, Tensor], state)


def as_state_dict(state: object, source: str) -> Mapping[str, Tensor]:
    """`state` if it is a mapping of names to tensors, not saved from a wrapper.

    Otherwise raises a CheckpointError that says how to get one.
    """
    tensors = as_tensors(state, source)
    wrapped = [name for name in tensors if name.startswith("module.")]
    if wrapped:
        raise CheckpointError(
            f"{source}: {len(wrapped)} names start with 'module.' ({wrapped[0]}): this was saved "
            "from a DataParallel wrapper. Remove the prefix: "
            "{name.removeprefix('module.'): tensor for name, tensor in state_dict.items()}"
        )
    return tensors
