"""Metrics of a model: segmentation metrics, figures of each field, bootstrap intervals, latency.

The names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetexp._lazy import lazy_names

if TYPE_CHECKING:
    from unetexp.metrics.boundary import boundary_iou
    from unetexp.metrics.calibration import brier_score, expected_calibration_error
    from unetexp.metrics.instances import instance_f1, panoptic_quality
    from unetexp.metrics.segmentation import SegmentationMetrics
    from unetexp.metrics.surface import hausdorff95, normalized_surface_dice
    from unetexp.metrics.topology import cl_dice

__all__ = [
    "SegmentationMetrics",
    "boundary_iou",
    "brier_score",
    "cl_dice",
    "expected_calibration_error",
    "hausdorff95",
    "instance_f1",
    "normalized_surface_dice",
    "panoptic_quality",
]

_MODULES = {
    "SegmentationMetrics": "segmentation",
    "boundary_iou": "boundary",
    "brier_score": "calibration",
    "cl_dice": "topology",
    "expected_calibration_error": "calibration",
    "hausdorff95": "surface",
    "instance_f1": "instances",
    "normalized_surface_dice": "surface",
    "panoptic_quality": "instances",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
