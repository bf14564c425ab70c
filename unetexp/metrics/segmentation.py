"""Segmentation metrics: one confusion matrix, and every metric derived from it.

With TP a class's diagonal element, ROW its target pixels and COLUMN its predicted pixels:
IoU = TP / (ROW + COLUMN - TP), Dice = 2 TP / (ROW + COLUMN), accuracy = sum TP / all pixels.
Void pixels are not counted. Means are over the classes that occur in prediction or target; the
others are NaN and listed as absent. The batch size does not affect the metrics.

Letters: N batch, K classes, H W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unetexp.data.labels import VOID, is_integer, valid_pixels
from unetexp.errors import ConfigError, DataError


class SegmentationMetrics:
    """mIoU, Dice and pixel accuracy of a whole set, updated batch by batch."""

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = VOID,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Pixels whose target is `ignore_index` are left out.

        Raises ConfigError unless each class has one name and the names differ.
        """
        if num_classes < 1:
            raise ConfigError(f"num_classes: {num_classes} is given, at least 1 is needed.")
        names = [str(k) for k in range(num_classes)] if class_names is None else list(class_names)
        if len(names) != num_classes or len(set(names)) != num_classes:
            raise ConfigError(
                f"class_names: {len(names)} names ({', '.join(names)}) are given for "
                f"{num_classes} classes: give each class a name of its own."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.class_names = tuple(names)
        self.reset()

    def reset(self) -> None:
        """Remove all counts."""
        self._confusion = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        self._image_dice: list[float] = []

    @property
    def confusion_matrix(self) -> Tensor:
        """Pixels counted so far (K, K), int64 on the CPU: rows are the target."""
        return self._confusion.clone()

    def update(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Count a batch: logits (N, K, H, W) or labels (N, H, W), and the target (N, H, W).

        Labels are of an integer type. Returns each image's own confusion matrix (N, K, K). Raises
        DataError for shapes that do not match and for a label that is not a class; such a batch is
        not counted.
        """
        self._check_shapes(prediction, target)
        truth = target.long()
        valid = valid_pixels(truth, self.num_classes, self.ignore_index, where="target")
        counts = self._count(self._predicted(prediction, valid), truth, valid)
        self._confusion = self._confusion + counts.sum(dim=0)  # new: may be an inference tensor
        _, dice = _overlaps(counts)
        self._image_dice += [value for value in dice.nanmean(dim=1).tolist() if value == value]
        return counts

    def merge(self, other: SegmentationMetrics) -> None:
        """Add the counts of `other`, as if its batches had been counted here."""
        if other.class_names != self.class_names or other.ignore_index != self.ignore_index:
            raise ConfigError("metrics of different classes or void labels cannot be merged.")
        self._confusion = self._confusion + other._confusion
        self._image_dice = self._image_dice + other._image_dice

    def compute(self) -> dict[str, Any]:
        """The metrics of everything counted so far, as Python floats; NaN where undefined.

        miou, dice (means over the classes that occur), pixel_accuracy, iou/<class> and
        dice/<class>, absent (the names of the classes that do not occur), and dice_per_image:
        the mean over images of each image's own mean Dice, images with no valid pixel left out.
        """
        iou, dice = _overlaps(self._confusion)
        pixels = int(self._confusion.sum())
        hits = int(self._confusion.trace())
        found: dict[str, Any] = {
            "miou": float(iou.nanmean()),
            "dice": float(dice.nanmean()),
            "pixel_accuracy": hits / pixels if pixels else math.nan,
            "dice_per_image": (
                math.fsum(self._image_dice) / len(self._image_dice)
                if self._image_dice
                else math.nan
            ),
        }
        named = list(zip(self.class_names, iou.tolist(), dice.tolist(), strict=True))
        found |= {f"iou/{name}": value for name, value, _ in named}
        found |= {f"dice/{name}": value for name, _, value in named}
        found["absent"] = [name for name, value, _ in named if math.isnan(value)]
        return found

    def _check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        if target.ndim != 3 or not is_integer(target):
            raise DataError(
                "target: expected integer labels (N, H, W), got "
                f"{target.dtype} {tuple(target.shape)}."
            )
        images, *size = target.shape
        logits = prediction.is_floating_point()
        expected = (images, self.num_classes, *size) if logits else (images, *size)
        if tuple(prediction.shape) != expected or prediction.is_complex():
            raise DataError(
                f"prediction: expected {'logits' if logits else 'integer labels'} {expected} for "
                f"a target {tuple(target.shape)}, got {prediction.dtype} {tuple(prediction.shape)}."
            )

    def _predicted(self, prediction: Tensor, valid: Tensor) -> Tensor:
        """The predicted labels (N, H, W) int64, 0 where the target is void."""
        if prediction.is_floating_point():
            highest, labels = prediction.max(dim=1)
            if (highest.isnan() & valid).any():
                raise DataError("prediction: there are NaN logits: the model has diverged.")
            return labels.where(valid, 0)
        labels = prediction.long().where(valid, 0)
        valid_pixels(labels, self.num_classes, void=None, where="prediction")
        return labels

    def _count(self, labels: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """One confusion matrix per image: (N, K, K) int64 on the CPU."""
        n, k = len(truth), self.num_classes
        image = torch.arange(n, device=truth.device).view(-1, 1, 1)
        cells = (image * k + truth) * k + labels
        return torch.bincount(cells[valid], minlength=n * k * k).view(n, k, k).cpu()


def mean_iou(confusion: Tensor) -> Tensor:
    """mIoU (...) float64 of confusion matrices (..., K, K); NaN if there is no valid pixel."""
    iou, _ = _overlaps(confusion)
    return iou.nanmean(dim=-1)


def _overlaps(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and Dice (..., K) float64 of confusion matrices (..., K, K); NaN for absent classes."""
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    sizes = (confusion.sum(dim=-1) + confusion.sum(dim=-2)).double()
    return hits / (sizes - hits), 2 * hits / sizes
