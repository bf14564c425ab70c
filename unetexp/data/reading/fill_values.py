"""Values that stand for no measurement: one exact number far from all others, such as -9999."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_SHARE = 0.001  # of the values; rarer ones lie in the tails that no range includes
_MOST = 4  # in one set
_FAR = 10  # times the others' spread between the value and the nearest other
_LEVELS = 16  # other values at least: two or three levels are a drawing, not a measurement
_USUAL = (-9999, -99999, -999999, -32767, -32768, -(2.0**31))  # far by once the spread

Values = npt.NDArray[np.float64]


def fill_values(values: Values) -> tuple[float, ...]:
    """The values, of a sample of finite ones, that lie far below or above all others.

    Each has a share of LEAST_SHARE or more and a gap of 10 times the spread of the others; once
    the spread is enough for numbers that are usual for it. 0 is none: it is black.
    """
    found: list[float] = []
    levels, counts = np.unique(values, return_counts=True)
    while len(found) < _MOST and len(levels) > _LEVELS:
        below = _is_fill(levels, counts, len(values))
        above = _is_fill(-levels[::-1], counts[::-1], len(values), usual=())
        if not below and not above:
            break
        found.append(float(levels[-1] if above else levels[0]))
        kept = slice(None, -1) if above else slice(1, None)
        levels, counts = levels[kept], counts[kept]
    return tuple(found)


def is_fill(plane: npt.NDArray[Any], fills: tuple[float, ...]) -> npt.NDArray[np.bool_]:
    """Which numbers are one of `fills`."""
    return np.isin(plane, np.asarray(fills, np.float64))


def _is_fill(
    levels: Values,
    counts: npt.NDArray[np.int64],
    total: int,
    usual: tuple[float, ...] = _USUAL,
) -> bool:
    """Whether the first of the ascending `levels` stands for no measurement."""
    value, nearest = levels[0], levels[1]
    if value == 0 or counts[0] < LEAST_SHARE * total:
        return False
    others = np.cumsum(counts[1:])
    upper = levels[1:][np.searchsorted(others, (1 - LEAST_SHARE) * others[-1])]
    far = 1 if value in usual else _FAR
    return bool(nearest - value > far * (upper - nearest) > 0)
