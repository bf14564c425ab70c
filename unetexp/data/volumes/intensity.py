"""From the numbers of a scan to pixels: Hounsfield windows, and percentiles for the rest.

Percentiles as nnU-Net clips intensities (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), but
of each volume, because MRI has no unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unetexp.errors import ConfigError, did_you_mean

Volume = npt.NDArray[np.float32]
Window = tuple[float, float]

WINDOWS: dict[str, Window] = {  # low and high in Hounsfield units: centre -+ half the width
    "lung": (-1350.0, 150.0),  # -600, 1500
    "soft_tissue": (-160.0, 240.0),  # 40, 400
    "mediastinum": (-125.0, 225.0),  # 50, 350
    "liver": (-45.0, 105.0),  # 30, 150
    "bone": (-500.0, 1300.0),  # 400, 1800
    "brain": (0.0, 80.0),  # 40, 80
}
WIDE: Window = (-1000.0, 1000.0)  # air to dense bone
PERCENTILES = (0.5, 99.5)

_MRI = re.compile(
    r"(?<![a-z0-9])(t1|t2|t1c|t1ce|t1gd|t1n|t2f|t[12]w|flair|pd|pdw|dwi|adc|mri?|bold)(?![a-z0-9])",
    re.IGNORECASE,
)
_AIR_HU = -500  # volumes that go below hold air in Hounsfield units


def known_window(given: Any) -> Any:
    """A preset's name or [low, high] as it was given; ConfigError for an unknown name or order."""
    presets = ", ".join(f"{name} {list(window)}" for name, window in WINDOWS.items())
    if isinstance(given, str) and given not in WINDOWS:
        raise ConfigError(
            f"{given!r} is not a window.{did_you_mean(given, WINDOWS)} Choices: {presets}, or "
            "[low, high] in Hounsfield units."
        )
    if isinstance(given, (list, tuple)):
        numbers = [v for v in given if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(given) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
            raise ConfigError(
                f"{list(given)!r} is not a window. Give [low, high] in Hounsfield units, the lower "
                f"first, or one of {presets}."
            )
    return given


@dataclass(frozen=True)
class Scale:
    """How a channel's numbers become 0 to 1, and how many bits those are kept in."""

    window: Window | None  # None: percentiles of each volume
    bits: Literal[8, 16]

    def unit(self, volume: Volume) -> Volume:
        """The volume in 0 to 1; what is no number becomes 0."""
        low, high = self.window or robust_range(volume)
        width = max(high - low, 1e-12)
        scaled = volume - np.float32(low)  # one copy: volumes may fill a good part of memory
        scaled /= np.float32(width)
        np.nan_to_num(scaled, copy=False, nan=0.0)
        return np.clip(scaled, 0, 1, out=scaled)

    def pixels(self, unit: Volume) -> npt.NDArray[np.uint8 | np.uint16]:
        """0 to 1 as whole numbers of `bits`."""
        kind = np.uint8 if self.bits == 8 else np.uint16
        scaled = unit * np.float32(2**self.bits - 1)
        return np.asarray(np.rint(scaled, out=scaled).astype(kind))


def robust_range(volume: Volume) -> Window:
    """The percentiles 0.5 and 99.5 of the numbers that are not 0 (the air around a head)."""
    inside = volume[np.isfinite(volume) & (volume != 0)]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, PERCENTILES)
    return float(low), float(high)


def is_hounsfield(volume: Volume) -> bool:
    """Whether a volume looks like CT in Hounsfield units: it holds air."""
    return bool(np.nanmin(volume) <= _AIR_HU)


def named_mri(channel: str) -> bool:
    """Whether a channel's name, such as T1, flair or sub-01_T2w, says that it is no CT."""
    return bool(_MRI.search(channel))
