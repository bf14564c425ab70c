"""Prediction with an exported file, without torch: several images at once, or one in tiles.

The same answers as `Predictor` gives of the file. N batch, C channels, K classes, H W image size,
h w size of a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetexp.compute.enlarging import enlarged
from unetexp.compute.tiling import TILE_PX, Block, Tiles, blended
from unetexp.data.collection import Labels, RawImage
from unetexp.data.resizing import resized_image, working_size
from unetexp.errors import UserError
from unetexp.inference.conforming import full_scale
from unetexp.postprocessing.labels import labels_of, shares_of
from unetexp.postprocessing.settings import Postprocessing
from unetexp.runtimes.runtime import Runtime

Scores = NDArray[np.float32]


class FilePredictor:
    """An exported model ready for raw images (C, H, W), conformed to its channels."""

    def __init__(self, runtime: Runtime, *, tile_px: int = TILE_PX) -> None:
        self.runtime = runtime
        self.spec = runtime.description.model
        self._post = self.spec.postprocessing or Postprocessing()
        described = runtime.description
        self._multiple = described.size_multiple
        self._tiles = Tiles.of(tile_px, None, self._multiple, described.receptive_radius_px)

    def padded_size(self, image: RawImage) -> tuple[int, int] | None:
        """What the network sees of it; images of one such size can go through it together.

        None if it goes through in tiles.
        """
        height, width = working_size(self.spec.resize, *image.shape[1:])
        if max(height, width) > self._tiles.side_px:
            return None
        return -(-height // self._multiple) * self._multiple, (
            -(-width // self._multiple) * self._multiple
        )

    def labels(self, images: Sequence[RawImage]) -> list[Labels]:
        """The label maps (H, W) of images of one padded size, or of a single one."""
        if self._post.changes_labels:
            return [self.labels_of(shares) for shares in self.probabilities(images)]
        return [
            _filled(np.empty(image.shape[1:], np.uint8), blocks, highest)
            for image, blocks in zip(images, self._blocks(images), strict=True)
        ]

    def probabilities(self, images: Sequence[RawImage]) -> list[Scores]:
        """Of each class (K, H, W). UserError for a file that gives label maps."""
        if self.runtime.description.preprocessing:
            raise UserError(
                f"{self.runtime.path.name} was exported with --preprocessing and gives label maps "
                "only: ask for labels or overlay, or serve a file without it."
            )
        classes = len(self.spec.class_names)
        softmax = partial(shares_of, temperature=self._post.temperature)
        return [
            _filled(np.empty((classes, *image.shape[1:]), np.float32), blocks, softmax)
            for image, blocks in zip(images, self._blocks(images), strict=True)
        ]

    def labels_of(self, shares: Scores) -> Labels:
        """The labels (H, W) of an image's probabilities (K, H, W), postprocessed."""
        if not self._post.changes_labels:
            return highest(shares)
        return labels_of(shares, self._post, self.spec.class_names)

    def _blocks(self, images: Sequence[RawImage]) -> list[Iterator[Block[Scores]]]:
        """The logits of each image, in parts that cover it."""
        sizes = [working_size(self.spec.resize, *image.shape[1:]) for image in images]
        working = [
            image if size == image.shape[1:] else resized_image(image, size)
            for image, size in zip(images, sizes, strict=True)
        ]
        if len(images) == 1:
            found = [self._in_tiles(working[0])]
        else:
            found = [iter([_whole(scores)]) for scores in self._together(working)]
        return [
            blocks if size == image.shape[1:] else self._scaled_back(blocks, size, image)
            for image, size, blocks in zip(images, sizes, found, strict=True)
        ]

    def _in_tiles(self, image: RawImage) -> Iterator[Block[Scores]]:
        rows, columns = self._tiles.grid(*image.shape[1:])
        return blended(rows, columns, lambda r, c: self._together([image[:, r, c]])[0])

    def _scaled_back(
        self, blocks: Iterator[Block[Scores]], size: tuple[int, int], image: RawImage
    ) -> Iterator[Block[Scores]]:
        scores = np.empty((len(self.spec.class_names), *size), np.float32)
        for block in blocks:
            scores[:, block.rows, block.columns] = block.scores
        height, width = image.shape[1:]
        for rows, part in enlarged(scores, (height, width)):
            yield Block(rows, slice(0, width), part)

    def _together(self, images: Sequence[RawImage]) -> list[Scores]:
        """The logits (K, h, w) of images of one padded size, in one pass.

        They are padded as the network pads them.
        """
        if self.runtime.description.preprocessing:
            return self._label_scores(images)
        given = np.stack([self._padded(self._normalised(image)) for image in images])
        found = self.runtime(given)
        return [
            np.asarray(scores[:, : image.shape[1], : image.shape[2]], np.float32)
            for scores, image in zip(found, images, strict=True)
        ]

    def _label_scores(self, images: Sequence[RawImage]) -> list[Scores]:
        """1 for the label, else 0, of a file that gives label maps."""
        given = np.stack([self._padded(self._as_trained(image)) for image in images])
        labels = self.runtime(np.ascontiguousarray(given.transpose(0, 2, 3, 1)))
        classes = np.arange(len(self.spec.class_names))[:, np.newaxis, np.newaxis]
        return [
            (found[: image.shape[1], : image.shape[2]] == classes).astype(np.float32)
            for found, image in zip(labels, images, strict=True)
        ]

    def _normalised(self, image: RawImage) -> Scores:
        mean, std = (
            np.array(values, np.float32)[:, np.newaxis, np.newaxis]
            for values in self.spec.normalization
        )
        scaled = image.astype(np.float32) / np.float32(full_scale(image.itemsize, self.spec))
        normalised: Scores = (scaled - mean) / std
        return normalised

    def _as_trained(self, image: RawImage) -> NDArray[Any]:
        trained, full = self.spec.image_max, full_scale(image.itemsize, self.spec)
        if full == trained:
            return image
        depth = np.uint8 if trained <= np.iinfo(np.uint8).max else np.uint16
        return (image * (trained / full)).round().astype(depth)

    def _padded(self, image: NDArray[Any]) -> NDArray[Any]:
        below, right = (-side % self._multiple for side in image.shape[1:])
        return np.pad(image, ((0, 0), (0, below), (0, right)), mode="edge")


def _whole(scores: Scores) -> Block[Scores]:
    return Block(slice(0, scores.shape[1]), slice(0, scores.shape[2]), scores)


def _filled(result: NDArray[Any], blocks: Iterator[Block[Scores]], what: Any) -> NDArray[Any]:
    for block in blocks:
        result[..., block.rows, block.columns] = what(block.scores)
    return result


def highest(scores: Scores) -> Labels:
    """The class of the highest score (h, w); NumPy's own argmax takes ten times as long."""
    best, labels = scores[0], np.zeros(scores.shape[1:], np.uint8)
    for label in range(1, len(scores)):
        labels[scores[label] > best] = label
        best = np.maximum(best, scores[label])
    return labels
