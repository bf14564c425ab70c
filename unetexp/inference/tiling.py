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
    top, left = row.core.start - row.tile.start, column.core.start - column.tile.start
    height, width = row.core.stop - row.core.start, column.core.stop - column.core.start
    core = scores[:, top : top + height, left : left + width]
    return core * row.fade()[:, None] * column.fade()
