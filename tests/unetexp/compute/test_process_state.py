"""What a run changes for its whole process is put back."""

from __future__ import annotations

import os
import random
import warnings

import numpy as np
import pytest
import torch

from unetexp.compute.process_state import process_state_kept


def spoil():
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    os.environ["UNETEXP_SPOILT"] = "1"
    os.environ["PATH"] = "/nowhere"
    warnings.simplefilter("ignore")


def state():
    return (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        dict(os.environ),
        list(warnings.filters),
    )


@pytest.mark.parametrize("error", [None, ValueError, SystemExit])
def test_everything_is_as_before_however_the_run_ends(error, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # whatever ran before this test
    before = state()
    try:
        with process_state_kept():
            spoil()
            assert all(now != then for now, then in zip(state(), before, strict=True))
            if error is not None:
                raise error
    except (ValueError, SystemExit):
        pass
    assert state() == before
