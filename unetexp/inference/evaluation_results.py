"""What an evaluation found, as JSON-safe values: what is undefined is null."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetexp.data import Dataset
from unetexp.inference.evaluation import SplitEvaluation
from unetexp.metrics.bootstrap import Interval, score_intervals
from unetexp.metrics.boundary import BAND
from unetexp.metrics.calibration import BINS
from unetexp.metrics.figures.families import family_of
from unetexp.metrics.figures.split import SplitFigures

_SUMMARY = ("miou", "dice", "pixel_accuracy")


def results_of(found: SplitEvaluation, model: str, data: Dataset, known: bool) -> dict[str, Any]:
    """Everything that was found; `known`: on the data that the model was trained with."""
    intervals = score_intervals(found.matrices)
    confusion = found.matrices.sum(axis=0)
    classes = [
        {
            "class": name,
            "iou": _with_interval(intervals[f"iou/{index}"], found.metrics[f"iou/{name}"]),
            "dice": _number(found.metrics[f"dice/{name}"]),
            "true_pixels": int(confusion[index].sum()),
            "predicted_pixels": int(confusion[:, index].sum()),
        }
        for index, name in enumerate(found.class_names)
    ]
    names = [*found.image_names]
    figures = found.figures
    assert figures is not None
    return {
        "model": model,
        "split": found.split,
        "images": len(names),
        "data": {"fingerprint": data.fingerprint, "same_as_in_training": known},
        **_figures_of(found),
        "classes": classes,
        "worst": [
            {"image": names[index], "miou": _number(found.image_miou[index])}
            for index in found.worst
        ],
        "image_miou": [
            {"image": name, "miou": _number(value)}
            for name, value in zip(names, found.image_miou, strict=True)
        ],
        "figure_settings": settings_of(figures),
        "figure_intervals": intervals_of(figures),
        "by_size": by_size(figures),
        "by_group": _by_group(figures, found.matrices),
        "by_image": _by_image(figures),
    }


def partial_results(found: SplitEvaluation, without: Sequence[int]) -> dict[str, Any]:
    """What was found with channels missing, counted from 1, in the form of the whole results."""
    return {"channels": list(without), **_figures_of(found)}


def settings_of(figures: SplitFigures) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        **figures.settings.tree(),
        "unit": figures.unit,
        "boundary_band": BAND,
        "calibration_bins": BINS,
    }


def intervals_of(figures: SplitFigures) -> dict[str, dict[str, Any]]:
    """Each figure with its interval, unit and aggregation."""
    return {
        name: {
            **_with_interval(interval, interval.value),
            "unit": figures.unit_of(name),
            "aggregation": family_of(name).aggregation,
        }
        for name, interval in figures.intervals.items()
    }


def by_size(figures: SplitFigures) -> list[dict[str, Any]]:
    """A row for the small, medium and large objects of each class."""
    return [
        {
            "class": row.class_name,
            "size": row.size,
            "largest": row.up_to,
            "unit": f"{figures.unit}^2",
            "objects": row.objects,
            "found": _with_interval(row.found, row.found.value),
            "pixels_found": _with_interval(row.covered, row.covered.value),
        }
        for row in figures.by_size
    ]


def _by_group(figures: SplitFigures, matrices: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A row for each group of images, such as a patient; none where the data has no groups."""
    rows = []
    for group, intervals in figures.by_group().items():
        own = np.array([each == group for each in figures.groups])
        miou = score_intervals(matrices[own])["miou"]
        rows.append(
            {
                "group": group,
                "images": int(own.sum()),
                "miou": _with_interval(miou, miou.value),
                "figures": {
                    name: _with_interval(interval, interval.value)
                    for name, interval in intervals.items()
                },
            }
        )
    return rows


def _by_image(figures: SplitFigures) -> list[dict[str, Any]]:
    """The figures of each image alone; means and sums over one image are the same."""
    values = {
        name: value
        for name, value in figures.by_image().items()
        if not family_of(name).name.endswith("_per_image")
    }
    return [
        {"image": image, "figures": {name: _number(value[n]) for name, value in values.items()}}
        for n, image in enumerate(figures.image_names)
    ]


def _figures_of(found: SplitEvaluation) -> dict[str, Any]:
    intervals = score_intervals(found.matrices)
    return {
        "figures": {name: _number(value) for name, value in found.all_metrics.items()},
        "summary": {
            name: _with_interval(intervals[name], found.metrics[name]) for name in _SUMMARY
        },
    }


def _with_interval(interval: Interval, value: float) -> dict[str, float | None]:
    low, high = _number(interval.low), _number(interval.high)
    return {"value": _number(value), "low": low, "high": high}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
