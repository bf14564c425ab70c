"""What a run may change for its whole process: put back, so that the next run starts as the first.

torch's switches and generators, Python's and numpy's generators, the environment and the filters
of warnings.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SWITCHES = (
    (torch.backends.cudnn, ("benchmark", "deterministic", "allow_tf32")),
    (torch.backends.cuda.matmul, ("allow_tf32",)),
)


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Put the process's state back at the end of the block, however that ends."""
    switches = [(of, name, getattr(of, name)) for of, names in _SWITCHES for name in names]
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()
    environment = dict(os.environ)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for of, name, value in switches:
            setattr(of, name, value)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        torch.set_rng_state(generators[2])
        _put_back(environment)


def _put_back(environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
