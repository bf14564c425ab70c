"""How many workers start side by side."""

from __future__ import annotations

import pytest

from sweeps.hardware import Placement
from sweeps.runner import starting_at_once


@pytest.mark.parametrize(
    ("cpus", "max_concurrent", "expected"), [(2, 4, 4), (2, 64, 8), (32, 64, 32), (2, 1, 1)]
)
def test_a_few_start_at_once_and_never_more_than_run(cpus, max_concurrent, expected):
    placement = Placement(max_concurrent, cpus, 1, 1, max_concurrent, simulated=True)
    assert starting_at_once(placement) == expected
