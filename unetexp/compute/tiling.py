"""Overlapping tiles of an image, and their scores merged without a visible seam.

Only the inner part of a tile, its core, is used: pixels nearer to a cut than the margin are
discarded, because the network's padding has changed them. Neighbouring cores overlap by the seam,
across which they are blended. Scores are finished block by block, in reading order, so that
only one tile and the seam above it are in memory.

K classes, H W image size, h w size of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the image."""

    tile: slice
    core: slice  # inside the tile
    enters: int  # how many pixels of the core fade in from the previous tile; 0 in the first
    leaves: int  # how many fade out into the next one; 0 in the last

    @property
    def finished(self) -> slice:
        """The pixels that no later tile changes."""
        return slice(self.core.start, self.core.stop - self.leaves)

    @property
    def size(self) -> int:
        """Pixels of the tile."""
        size: int = self.tile.stop - self.tile.start
        return size

    @property
    def inner(self) -> slice:
        """The core's place in the tile."""
        return slice(self.core.start - self.tile.start, self.core.stop - self.tile.start)

    def fade(self) -> Tensor:
        """The core's weights; with those of the neighbours they add up to 1."""
        weights = torch.ones(self.core.stop - self.core.start)
        weights[: self.enters] = (torch.arange(self.enters) + 0.5) / self.enters
        weights[len(weights) - self.leaves :] = 1 - (torch.arange(self.leaves) + 0.5) / self.leaves
        return weights


@dataclass(frozen=True)
class Block:
    """The finished scores of a part of the image."""

    rows: slice
    columns: slice
    scores: Tensor  # (K, h, w) float32


def spans(size: int, tile: int, overlap: int, seam: int) -> list[Span]:
    """The tiles along an axis of `size` pixels; one if it is no longer than a tile.

    They start at multiples of `tile` - `overlap`; the last one ends with the image and is longer
    than `overlap`. `seam` is at most `overlap` and at most `tile` - `overlap`.
    """
    if size <= tile:
        return [Span(slice(0, size), slice(0, size), enters=0, leaves=0)]
    step, margin = tile - overlap, (overlap - seam) // 2
    starts = range(0, size - overlap, step)
    return [
        Span(
            tile=slice(start, min(start + tile, size)),
            core=slice(
                start + margin if start else 0,
                start + tile - margin if start != starts[-1] else size,
            ),
            enters=seam if start else 0,
            leaves=seam if start != starts[-1] else 0,
        )
        for start in starts
    ]


@lru_cache(maxsize=256)
def cheapest_spans(
    height: int, width: int, overlap: int, most_pixels: int, stride: int
) -> tuple[Sequence[Span], Sequence[Span]]:
    """Rows and columns of tiles of at most `most_pixels` that compute the fewest pixels.

    Tiles that must overlap cannot be smaller than `overlap` and a stride: where that is more than
    `most_pixels`, they are of that size. Overlaps are multiples of `stride`, without a seam.
    """
    by_rows, by_columns = (_divisions(size, overlap, stride) for size in (height, width))
    layouts = [(rows, columns) for rows in by_rows for columns in by_columns]
    fitting = [layout for layout in layouts if largest_tile(*layout) <= most_pixels]
    return min(fitting, key=lambda layout: computed_pixels(*layout), default=layouts[-1])


def largest_tile(rows: Sequence[Span], columns: Sequence[Span]) -> int:
    """Pixels of the largest tile."""
    return max(row.size for row in rows) * max(column.size for column in columns)


def computed_pixels(rows: Sequence[Span], columns: Sequence[Span]) -> int:
    """Pixels of all tiles, those that overlap counted again."""
    return sum(row.size for row in rows) * sum(column.size for column in columns)


def _divisions(size: int, overlap: int, stride: int) -> list[list[Span]]:
    """The axis in one tile, in two, ... up to the smallest that overlap."""
    steps = {
        -(-(size - overlap) // (count * stride)) * stride
        for count in range(2, -(-(size - overlap) // stride) + 1)
    }
    tiles = [overlap + step for step in sorted(steps, reverse=True)]
    return [spans(size, max(size, 1), 0, 0), *(spans(size, tile, overlap, 0) for tile in tiles)]


def blended(
    rows: Sequence[Span], columns: Sequence[Span], score: Callable[[slice, slice], Tensor]
) -> Iterator[Block]:
    """The scores of the whole image in blocks that do not overlap and cover the image.

    `score` returns those of the tile at (rows, columns): (K, H, W) float32 of the tile's size.
    """
    above = torch.empty(0)  # (K, seam, W): what the tiles above add to the row
    for row in rows:
        below = torch.empty(0)
        left = torch.empty(0)  # (K, h, seam): what the tile to the left adds to the next
        for column in columns:
            core = _faded_core(row, column, score(row.tile, column.tile))
            core[:, :, : column.enters] += left if column.enters else 0
            whole = core.shape[2] - column.leaves
            left, core = core[:, :, whole:].clone(), core[:, :, :whole]
            core[:, : row.enters] += above[:, :, column.finished] if row.enters else 0
            whole = core.shape[1] - row.leaves
            if column is columns[0]:
                below = core.new_empty(core.shape[0], row.leaves, columns[-1].core.stop)
            below[:, :, column.finished] = core[:, whole:]
            yield Block(row.finished, column.finished, core[:, :whole])
        above = below


def _faded_core(row: Span, column: Span, scores: Tensor) -> Tensor:
    core = scores[:, row.inner, column.inner]
    return core * row.fade()[:, None] * column.fade()
