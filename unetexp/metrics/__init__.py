"""Metrics of a model: segmentation metrics, bootstrap intervals, latency.

The names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetexp._lazy import lazy_names

if TYPE_CHECKING:
    from unetexp.metrics.segmentation import SegmentationMetrics

__all__ = ["SegmentationMetrics"]

__getattr__, __dir__ = lazy_names(__name__, {"SegmentationMetrics": "segmentation"})
