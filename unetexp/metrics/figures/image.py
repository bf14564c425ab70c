"""The figures of one image, as numerators and denominators that add up over a split.

H W image size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unetexp.data.labels import VOID
from unetexp.metrics.boundary import boundary_counts
from unetexp.metrics.figures.families import foreground
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.instances import match_objects
from unetexp.metrics.surface import SQUARE, Mask, Spacing, surface_distances
from unetexp.metrics.topology import centrelines

LabelMap = NDArray[np.integer]  # (H, W)
Parts = dict[str, tuple[float, float]]  # figure -> numerator and denominator


@dataclass(frozen=True)
class ObjectRow:
    """An object of the truth."""

    label: int  # its class
    area: float  # in px or mm squared
    found: bool  # a predicted object overlaps it with an IoU above 0.5
    pixels: int
    covered: int  # of these, predicted as its class


@dataclass
class ImageParts:
    """What an image adds to the figures of its split."""

    parts: Parts = field(default_factory=dict)
    objects: list[ObjectRow] = field(default_factory=list)


def measured(
    truth: LabelMap,
    prediction: LabelMap,
    class_names: Sequence[str],
    settings: FigureSettings,
    spacing: Spacing = SQUARE,
) -> ImageParts:
    """The figures of an image (H, W) of class indices; void is masked in both alike."""
    valid = truth != VOID
    found = ImageParts()
    for label in foreground(class_names):
        own, predicted = (truth == label) & valid, (prediction == label) & valid
        families: Parts = {}
        if own.any() or predicted.any():
            families |= _overlaps(own, predicted)
            families |= _outlines(own, predicted, settings, spacing)
            families |= _objects(own, predicted, label, spacing, found.objects)
            line = centrelines(own, predicted).dice
            families["cldice"] = (line, 1)
        if len(class_names) == 2:
            families |= dict(_binary(own, predicted, valid))
        name = class_names[label]
        found.parts |= {f"{family}/{name}": part for family, part in families.items()}
    return found


def _overlaps(truth: Mask, prediction: Mask) -> Parts:
    """Of masks that are not both empty."""
    hits = int(np.count_nonzero(truth & prediction))
    own, predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    iou, dice = (hits, own + predicted - hits), (2 * hits, own + predicted)
    return {
        "iou": iou,
        "dice": dice,
        "iou_per_image": (iou[0] / iou[1], 1),
        "dice_per_image": (dice[0] / dice[1], 1),
        "missed_images": (int(not predicted), 1),
        "false_images": (int(not own), 1),
    }


def _outlines(truth: Mask, prediction: Mask, settings: FigureSettings, spacing: Spacing) -> Parts:
    hits, union = boundary_counts(truth, prediction)
    distances = surface_distances(truth, prediction, spacing, outline=settings.outline)
    return {
        "boundary_iou": (hits, union),
        "boundary_iou_per_image": (hits / union, 1),
        "nsd": (distances.dice(settings.tolerance), 1),
        "hd95": (distances.hausdorff(), 1),
    }


def _objects(
    truth: Mask, prediction: Mask, label: int, spacing: Spacing, rows: list[ObjectRow]
) -> Parts:
    """The figures of objects; those of the truth are added to `rows`."""
    matches = match_objects(truth, prediction)
    pixel = spacing[0] * spacing[1]
    for area, covered, iou in zip(
        matches.areas.tolist(), matches.covered.tolist(), matches.iou.tolist(), strict=True
    ):
        rows.append(ObjectRow(label, area * pixel, iou > 0, area, covered))
    return {
        "instance_f1": (matches.found, matches.weight),
        "panoptic_quality": (float(matches.iou.sum()), matches.weight),
    }


def _binary(
    truth: Mask, prediction: Mask, valid: Mask
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Sensitivity TP / (TP + FN) and specificity TN / (TN + FP), of pixels."""
    own, others = np.count_nonzero(truth), np.count_nonzero(valid & ~truth)
    yield "sensitivity", (int(np.count_nonzero(truth & prediction)), int(own))
    yield "specificity", (int(np.count_nonzero(valid & ~truth & ~prediction)), int(others))
