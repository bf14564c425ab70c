"""The figures of a split, collected image by image while a model is evaluated.

Threads measure the images: SciPy's transforms let others run meanwhile. What is held of an image
are its label maps until it is measured, and its parts of the figures from then on.

I images, F figures, P parts, B bins, H W image size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetexp.metrics.bootstrap import Floats
from unetexp.metrics.calibration import BINS
from unetexp.metrics.figures.families import figure_names, foreground
from unetexp.metrics.figures.image import ImageParts, measured
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.figures.split import Pooled, SplitFigures, sizes_of
from unetexp.metrics.surface import SQUARE, Spacing

_WAITING = 8  # images a thread


class FigureCollector:
    """Takes the images of a split in any order; `figures` are those of all of them."""

    def __init__(
        self,
        class_names: Sequence[str],
        image_names: Sequence[str],
        settings: FigureSettings | None = None,
        *,
        groups: Sequence[str] = (),
        spacings_mm: Mapping[str, Spacing] | None = None,
        probabilities: bool = True,
        threads: int | None = None,
    ) -> None:
        """`spacings_mm` are (height, width) of a pixel of each image, by its name, if known.

        Without `probabilities` the figures of them are undefined.
        """
        self.class_names, self.image_names = tuple(class_names), tuple(image_names)
        self.settings = settings or FigureSettings()
        self._groups, self._spacings = tuple(groups), spacings_mm
        self._probabilities = probabilities
        self._threads = threads or torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, "figures")
        self._waiting: deque[tuple[int, Future[ImageParts]]] = deque()
        self._measured: dict[int, ImageParts] = {}
        self._calibration: dict[int, Tensor] = {}

    def __call__(self, index: int, prediction: Tensor, truth: Tensor, calibration: Tensor) -> None:
        """Take an image: labels (H, W) of prediction and truth, and `calibration_sums` (B + 2,)."""
        own, predicted = (
            part.to("cpu", torch.uint8, copy=True).numpy() for part in (truth, prediction)
        )
        self._calibration[index] = calibration * self._probabilities
        spacing = SQUARE if self._spacings is None else self._spacings[self.image_names[index]]
        job = self._pool.submit(measured, own, predicted, self.class_names, self.settings, spacing)
        self._waiting.append((index, job))
        if len(self._waiting) > _WAITING * self._threads:
            self._finish_first()

    def figures(self) -> SplitFigures:
        """The figures; no more images can be taken."""
        while self._waiting:
            self._finish_first()
        self._pool.shutdown()
        images = len(self.image_names)
        parts = [self._measured[index] for index in range(images)]
        objects = [(index, row) for index, image in enumerate(parts) for row in image.objects]
        by_size, recall = sizes_of(objects, self.class_names, images)
        sums = torch.stack([self._calibration[index] for index in range(images)]).cpu().numpy()
        return SplitFigures(
            settings=self.settings,
            unit="px" if self._spacings is None else "mm",
            class_names=tuple(self.class_names[label] for label in foreground(self.class_names)),
            image_names=self.image_names,
            groups=self._groups,
            pooled=_pooled(figure_names(self.class_names), parts, recall, sums),
            by_size=tuple(by_size),
        )

    def _finish_first(self) -> None:
        index, job = self._waiting.popleft()
        self._measured[index] = job.result()


def _pooled(
    names: Sequence[str],
    images: Sequence[ImageParts],
    recall: Mapping[str, tuple[Floats, Floats]],
    calibration: NDArray[np.float64],
) -> Pooled:
    """The parts of all images, in the order of the names."""
    starts: list[int] = []
    columns: list[Floats] = []  # (I, number of parts) each
    divisors: list[Floats] = []
    kept = []
    pixels = calibration[:, BINS + 1]
    for name in names:
        if name == "ece":
            own, divisor = calibration[:, :BINS], pixels
        elif name == "brier":
            own, divisor = calibration[:, BINS : BINS + 1], pixels
        elif name in recall:
            own, divisor = recall[name][0][:, np.newaxis], recall[name][1]
        elif "/" in name:
            table = np.array([image.parts.get(name, (0, 0)) for image in images], np.float64)
            own, divisor = table[:, :1], table[:, 1]
        else:
            continue  # a mean over classes
        kept.append(name)
        starts.append(sum(column.shape[1] for column in columns))
        columns.append(own)
        divisors.append(divisor)
    return Pooled(
        tuple(kept), tuple(starts), np.concatenate(columns, axis=1), np.stack(divisors, axis=1)
    )
