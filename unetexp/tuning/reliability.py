"""The reliability diagram: how often a model is right, by how sure it says it is.

After DeGroot and Fienberg 1983 and Guo et al. 2017 (arXiv:1706.04599). B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from unetexp.metrics.calibration import BINS
from unetexp.tuning.temperature import Pixels


class Bin(NamedTuple):
    """The pixels whose highest probability lies in one part of 0 to 1."""

    confidence: float  # its mean
    accuracy: float  # share of right pixels
    pixels: int


def reliability(images: Sequence[Pixels], temperature: float) -> list[Bin]:
    """The bins that have pixels, of all images."""
    shares = np.concatenate([softmax(i.logits / temperature, axis=0) for i in images], axis=1)
    truth = np.concatenate([image.truth for image in images])
    confidence, right = shares.max(axis=0), shares.argmax(axis=0) == truth
    bins = np.ceil(confidence * BINS).clip(1, BINS).astype(int)
    return [
        Bin(float(confidence[held].mean()), float(right[held].mean()), int(held.sum()))
        for held in (bins == number for number in range(1, BINS + 1))
        if held.any()
    ]


def draw(before: Sequence[Bin], after: Sequence[Bin], temperature: float, path: Path) -> None:
    """Write the diagram as a picture; `after` is left out where the temperature is 1."""
    from matplotlib.figure import Figure  # takes half a second

    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="as sure as it is right")
    axes.plot(*_line(before), "o-", color="#1f77b4", label="as trained")
    if temperature != 1.0:
        axes.plot(*_line(after), "s-", color="#d62728", label=f"temperature {temperature:.3g}")
    axes.set(xlabel="highest probability", ylabel="share of right pixels", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=120)


def _line(bins: Sequence[Bin]) -> tuple[list[float], list[float]]:
    return [each.confidence for each in bins], [each.accuracy for each in bins]
