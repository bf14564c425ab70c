"""Pairs of pictures that may show the same thing: a perceptual hash of real numbers.

The hash of a picture is its low spatial frequencies (a cosine transform, as in pHash), with equal
weight in each octave and without brightness and contrast. Mirroring changes the signs of its odd
frequencies and turning swaps its axes, so that absolute values, added and subtracted across the
diagonal, are the same for all eight. A picture that was cut is found because the whole of it is
compared with windows of the other. All pictures are compared in blocks of a matrix product.

N pictures, P their side, W windows, F frequencies of an axis.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Span = tuple[float, float]  # start and end, as shares of a side
Windows = tuple[tuple[Span, Span], ...]  # of the two axes

FREQUENCIES = 12
_WHOLE: Span = (0.0, 1.0)
_CUTS: tuple[Span, ...] = ((0.0, 0.9), (0.05, 0.95), (0.1, 1.0))
_SMALL_CUTS: tuple[Span, ...] = ((0.0, 0.95), (0.05, 1.0))
WINDOWS: Windows = (
    (_WHOLE, _WHOLE),
    *product(_CUTS, _CUTS),
    *product((_WHOLE,), _CUTS),
    *product(_CUTS, (_WHOLE,)),
    *product(_SMALL_CUTS, _SMALL_CUTS),
)
_MOST = 12  # candidates of a picture, the most similar ones
_LEAST = 0.80  # similarity below which nothing is a candidate
_BLOCK = 512  # pictures that are compared at once with all windows of as many
_MANY = 20_000  # pictures above which only whole pictures are compared


def searches_cuts(count: int) -> bool:
    """Whether so many pictures are compared with parts of each other, too."""
    return count <= _MANY


def windows_for(count: int) -> Windows:
    """The windows that so many pictures are compared with; for very many, the whole only."""
    return WINDOWS if searches_cuts(count) else WINDOWS[:1]


def candidates(thumbs: npt.NDArray[np.float16]) -> npt.NDArray[np.int64]:
    """Pairs (M, 3) of pictures (N, P, P): the whole of one, another, and its window."""
    windows = windows_for(len(thumbs))
    hashes = np.concatenate(
        [
            _hashes(thumbs[start : start + _BLOCK], windows)
            for start in range(0, len(thumbs), _BLOCK)
        ]
    )  # (N, W, F * F)
    found = [
        _most_similar(hashes[start : start + _BLOCK, 0], hashes, start)
        for start in range(0, len(thumbs), _BLOCK)
    ]
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


def _most_similar(whole: Floats, hashes: Floats, first: int) -> npt.NDArray[np.int64]:
    """The candidates of the pictures from number `first` on, of which `whole` are the hashes."""
    scores, others = [], []
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        score = (whole @ block.reshape(-1, block.shape[-1]).T).reshape(len(whole), *block.shape[:2])
        window = score.argmax(axis=2)
        best = np.take_along_axis(score, window[..., np.newaxis], axis=2)[..., 0]
        _leave_out_itself(best, first, start)
        most = min(_MOST, best.shape[1])
        top = np.argpartition(-best, most - 1, axis=1)[:, :most]
        scores.append(np.take_along_axis(best, top, axis=1))
        others.append(np.stack([top + start, np.take_along_axis(window, top, axis=1)], axis=-1))
    score, other = np.concatenate(scores, axis=1), np.concatenate(others, axis=1)
    top = np.argsort(-score, axis=1)[:, :_MOST]
    kept = np.take_along_axis(score, top, axis=1) >= _LEAST
    rows = np.broadcast_to(np.arange(len(whole))[:, np.newaxis] + first, kept.shape)
    chosen = np.take_along_axis(other, top[..., np.newaxis], axis=1)
    return np.concatenate([rows[kept][:, np.newaxis], chosen[kept]], axis=1)


def _leave_out_itself(best: Floats, first: int, start: int) -> None:
    rows = np.arange(len(best))
    columns = rows + first - start
    inside = (columns >= 0) & (columns < best.shape[1])
    best[rows[inside], columns[inside]] = -1


def _hashes(thumbs: npt.NDArray[np.float16], windows: Windows) -> Floats:
    """Pictures (N, P, P) -> (N, W, F * F), of length 1; 0 for a constant picture."""
    pictures = thumbs.astype(np.float32)
    spans = list(dict.fromkeys(span for window in windows for span in window))
    bases = np.concatenate([_cosines(span, pictures.shape[-1]) for span in spans])  # (spans * F, P)
    both = (bases @ pictures @ bases.T).reshape(
        len(pictures), len(spans), FREQUENCIES, len(spans), FREQUENCIES
    )
    rows = [spans.index(window[0]) for window in windows]
    columns = [spans.index(window[1]) for window in windows]
    waves = both.transpose(0, 1, 3, 2, 4)[:, rows, columns] * _octaves()  # (N, W, F, F)
    size, turned = np.abs(waves), np.abs(waves).swapaxes(-1, -2)
    lower = np.tri(FREQUENCIES, k=-1, dtype=np.bool_)
    return _unit(np.where(lower, np.abs(size - turned), size + turned))


def turns_of_pairs(
    thumbs: npt.NDArray[np.float16], pairs: npt.NDArray[np.int64], windows: Windows
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The best of the eight ways to turn the first of each pair (M, 3), and its likeness (M,).

    Here the signs count, so that the likeness of different pictures is near 0.
    """
    turns, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        whole = np.stack([_cosines(_WHOLE, thumbs.shape[-1])] * len(block))
        first = _waves(thumbs[block[:, 0]], whole, whole)
        spans = np.array(
            [[_cosines(span, thumbs.shape[-1]) for span in window] for window in windows]
        )[block[:, 2]]
        second = _unit(_waves(thumbs[block[:, 1]], spans[:, 0], spans[:, 1]))
        each = np.stack([(_unit(_turned(first, t)) * second).sum(axis=-1) for t in range(8)])
        turns.append(each.argmax(axis=0))
        scores.append(each.max(axis=0))
    return np.concatenate(turns), np.concatenate(scores)


def _turned(waves: Floats, turn: int) -> Floats:
    """The waves (M, F, F) of pictures that are turned as in `alignment.turned`."""
    signs = (-1.0) ** np.arange(FREQUENCIES)
    if turn >= 4:
        waves = waves.swapaxes(-1, -2)
    if turn & 1:
        waves = waves * signs
    if turn & 2:
        waves = waves * signs[:, np.newaxis]
    return waves


def _waves(thumbs: npt.NDArray[np.float16], rows: Floats, columns: Floats) -> Floats:
    """Pictures (M, P, P) and cosines of their axes (M, F, P) -> (M, F, F)."""
    waves: Floats = rows @ thumbs.astype(np.float32) @ columns.swapaxes(1, 2) * _octaves()
    return waves


def _unit(waves: Floats) -> Floats:
    """(..., F, F) -> (..., F * F) of length 1."""
    flat = waves.reshape(*waves.shape[:-2], -1)
    norm = np.linalg.norm(flat, axis=-1, keepdims=True)
    unit: Floats = (flat / np.maximum(norm, 1e-6)).astype(np.float32)
    return unit


def _octaves() -> Floats:
    """(F, F) weights that even out the usual fall of the spectrum; 0 for the mean."""
    vertical, horizontal = np.mgrid[:FREQUENCIES, :FREQUENCIES]
    weights = np.hypot(vertical, horizontal)
    weights[weights >= FREQUENCIES] = 0  # the corner moves most when a picture is cut
    return np.asarray(weights, np.float32)


def _cosines(span: Span, side: int) -> Floats:
    """(F, P): the first cosines over a span of an axis, 0 outside of it."""
    start, end = span[0] * side, span[1] * side
    place = (np.arange(side) + 0.5 - start) / (end - start)
    waves = np.cos(np.pi * np.arange(FREQUENCIES)[:, np.newaxis] * place)
    inside = np.clip(
        np.minimum(np.arange(side) + 1, end) - np.maximum(np.arange(side), start), 0, 1
    )
    weighted = waves * inside / (end - start)
    weighted[1:] *= np.sqrt(2)
    return np.asarray(weighted, np.float32)
