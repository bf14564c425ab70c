"""The counts of one pass over a split: its metrics, those of each image, and the worst images.

N batch, K classes, H W image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unetexp.compute.on_device import on_host
from unetexp.metrics.segmentation import SegmentationMetrics, mean_iou

_UNREAD_BYTES = 2**26


@dataclass(frozen=True)
class _Batch:
    """A counted batch whose scores the host has not read yet."""

    indices: tuple[int, ...]
    scores: Tensor  # (N,) float64 mIoU, on the device
    maps: Tensor | None  # (N, H, W) uint8 on the host, complete once the scores can be read
    matrices: Tensor | None  # (N, K, K) int64, on the device

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.maps, self.matrices) if part is not None)


class ImageScores:
    """Updated batch by batch; images are identified by their index in the split.

    On a GPU the scores of many batches are read at once, because each reading waits for it.
    """

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
        self._image_miou: dict[int, float] = {}
        self._predictions: dict[int, Tensor] = {}
        self._worst: dict[int, Tensor] = {}
        self._matrices: dict[int, Tensor] = {}
        self._unread: list[_Batch] = []
        self._keep, self._most, self._keep_matrices = frozenset(keep), worst, keep_matrices

    @property
    def image_miou(self) -> dict[int, float]:
        """mIoU of each image; NaN if all of it is void."""
        self._read()
        return self._image_miou

    @property
    def predictions(self) -> dict[int, Tensor]:
        """Label maps (H, W) uint8 of the images to keep."""
        self._read()
        return self._predictions

    @property
    def worst(self) -> dict[int, Tensor]:
        """Label maps (H, W) uint8 of the worst images, the lowest first."""
        self._read()
        return self._worst

    @property
    def matrices(self) -> dict[int, Tensor]:
        """Confusion matrices (K, K) int64 of each image, if they are kept."""
        self._read()
        return self._matrices

    def update(self, indices: Sequence[int], labels: Tensor, masks: Tensor) -> None:
        """Count the images `indices`: predicted labels and truth, (N, H, W) each."""
        matrices = self.metrics.update(labels, masks)
        shown = self._most > 0 or not self._keep.isdisjoint(indices)
        batch = _Batch(
            tuple(indices),
            mean_iou(matrices),
            labels.to(torch.uint8).to("cpu", non_blocking=True) if shown else None,
            matrices if self._keep_matrices else None,
        )
        self._unread.append(batch)
        if on_host(labels) or sum(batch.nbytes for batch in self._unread) > _UNREAD_BYTES:
            self._read()

    def merge(self, other: ImageScores) -> None:
        """Add the counts of `other`, which are of other images of the split."""
        self.metrics.merge(other.metrics)
        self.image_miou.update(other.image_miou)
        self.predictions.update(other.predictions)
        self.matrices.update(other.matrices)
        self.worst.update(other.worst)
        self._drop_better()

    def __getstate__(self) -> dict[str, Any]:
        """Everything on the host, for another process."""
        self._read()
        return {**self.__dict__, "metrics": self.metrics.clone().cpu()}

    def _read(self) -> None:
        """Take the unread batches in. The label maps were copied before the scores are."""
        batches, self._unread = self._unread, []
        if not batches:
            return
        scores = iter(torch.cat([batch.scores for batch in batches]).tolist())
        for batch in batches:
            self._image_miou |= {index: next(scores) for index in batch.indices}
            if batch.matrices is not None:
                self._matrices |= zip(batch.indices, batch.matrices.cpu(), strict=True)
            if batch.maps is not None:
                self._choose(batch.indices, batch.maps)

    def _choose(self, indices: Sequence[int], maps: Tensor) -> None:
        """Keep copies of the label maps that are asked for, not the batch."""
        for index, label_map in zip(indices, maps, strict=True):
            if index in self._keep:
                self._predictions[index] = label_map.clone()
            if self._is_among_worst(index):
                self._worst[index] = label_map.clone()
                self._drop_better()

    def _is_among_worst(self, index: int) -> bool:
        if math.isnan(self._image_miou[index]):
            return False
        if len(self._worst) < self._most:
            return True
        return bool(self._worst) and self._sort_key(index) < max(map(self._sort_key, self._worst))

    def _drop_better(self) -> None:
        lowest = sorted(self._worst, key=self._sort_key)[: self._most]
        self._worst = {index: self._worst[index] for index in lowest}

    def _sort_key(self, index: int) -> tuple[float, int]:
        return self._image_miou[index], index
