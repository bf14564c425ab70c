"""The counts of one pass over a split: its metrics, those of each image, and the worst images.

N batch, K classes, H W image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unetexp.metrics.segmentation import SegmentationMetrics, mean_iou


class ImageScores:
    """Updated batch by batch; images are identified by their index in the split."""

    def __init__(
        self,
        metrics: SegmentationMetrics,
        *,
        keep: Sequence[int] = (),
        worst: int = 0,
        keep_matrices: bool = False,
    ) -> None:
        """Keeps the label maps of the images `keep` and of the `worst` ones, by lowest mIoU."""
        self.metrics = metrics
        self.image_miou: dict[int, float] = {}  # NaN if all of the image is void
        self.predictions: dict[int, Tensor] = {}  # (H, W) uint8 each
        self.worst: dict[int, Tensor] = {}  # (H, W) uint8 each, the lowest first
        self.matrices: dict[int, Tensor] = {}  # (K, K) int64
        self._keep, self._most, self._keep_matrices = frozenset(keep), worst, keep_matrices

    def update(self, indices: Sequence[int], labels: Tensor, masks: Tensor) -> None:
        """Count the images `indices`: predicted labels and truth, (N, H, W) each."""
        confusions = self.metrics.update(labels, masks)
        scores = mean_iou(confusions).tolist()
        for index, label, score in zip(indices, labels, scores, strict=True):
            self.image_miou[index] = score
            if index in self._keep:
                self.predictions[index] = label.to("cpu", torch.uint8)
            if self._is_among_worst(index):
                self.worst[index] = label.to("cpu", torch.uint8)
                self._drop_better()
        if self._keep_matrices:
            self.matrices |= zip(indices, confusions, strict=True)

    def merge(self, other: ImageScores) -> None:
        """Add the counts of `other`, which are of other images of the split."""
        self.metrics.merge(other.metrics)
        self.image_miou |= other.image_miou
        self.predictions |= other.predictions
        self.matrices |= other.matrices
        self.worst |= other.worst
        self._drop_better()

    def _is_among_worst(self, index: int) -> bool:
        if math.isnan(self.image_miou[index]):
            return False
        if len(self.worst) < self._most:
            return True
        return bool(self.worst) and self._sort_key(index) < max(map(self._sort_key, self.worst))

    def _drop_better(self) -> None:
        lowest = sorted(self.worst, key=self._sort_key)[: self._most]
        self.worst = {index: self.worst[index] for index in lowest}

    def _sort_key(self, index: int) -> tuple[float, int]:
        return self.image_miou[index], index
