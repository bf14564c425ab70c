"""How alike two pictures are once one is laid over the other.

One picture is mirrored and turned in all eight ways, then moved and stretched along both axes by
the method of Lucas and Kanade (1981), and compared by correlation. What differs between two
pictures of one kind is their fine structure, so that is compared by itself, too.

M pairs, P the side of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unetexp.data.checks.copies.candidates import Windows

Floats = npt.NDArray[np.float32]

TURNS = (
    "",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "mirrored at the diagonal",
    "turned by 90 degrees",
    "turned by 270 degrees",
    "mirrored at the other diagonal",
)
_COARSE_STEPS, _FINE_STEPS = 6, 3
_BLUR = 1.0  # pixels
_WIDE = 6.0  # what is wider than this is not fine structure
_GRAIN = 1.5  # what is wider is not grain
_FLAT = 3.0  # slope, as a multiple of the usual, from which there is an edge
_FEWEST = 60  # pixels without an edge
_DEVIATIONS = 3.5  # of chance, below which a correlation of noise means nothing
_SILENT = 0.004  # deviation of noise below which there is none; pictures have 1
_EDGE = 2  # pixels at the rim that are not compared
_CHUNK = 512
_LIMIT = 0.2  # share of a side by which a picture may be moved or stretched


@dataclass(frozen=True)
class Alikeness:
    """The likeness of the pairs; M entries each."""

    whole: Floats  # correlation of the pictures
    fine: Floats  # correlation of their fine structure
    grain: Floats  # correlation of what is finer still, where no edge outweighs it
    moved: Floats  # largest displacement of a corner, in pixels of the picture
    covered: Floats  # share of the first that the second shows, 1: nothing was cut


def turned(pictures: Floats, turn: int) -> Floats:
    """The pictures (..., P, P) mirrored and turned in one of the eight ways."""
    if turn >= 4:
        pictures = pictures.swapaxes(-1, -2)
    if turn & 1:
        pictures = pictures[..., ::-1]
    if turn & 2:
        pictures = pictures[..., ::-1, :]
    return pictures


def alikeness(
    thumbs: npt.NDArray[np.float16],
    pairs: npt.NDArray[np.int64],
    turns: npt.NDArray[np.int64],
    windows: Windows,
) -> Alikeness:
    """Compare the whole of `thumbs[pairs[:, 0]]`, turned, with a window of `thumbs[pairs[:, 1]]`.

    `pairs` is (M, 3), the last the index of the window to begin with; `turns` (M,) is in TURNS.
    """
    parts = [Alikeness(*(np.zeros(0, np.float32) for _ in range(5)))]
    for start in range(0, len(pairs), _CHUNK):
        inside = slice(start, start + _CHUNK)
        parts.append(_chunk(thumbs, pairs[inside], turns[inside], windows))
    columns = zip(
        *((part.whole, part.fine, part.grain, part.moved, part.covered) for part in parts),
        strict=True,
    )
    return Alikeness(*(np.concatenate(column) for column in columns))


def _chunk(
    thumbs: npt.NDArray[np.float16],
    pairs: npt.NDArray[np.int64],
    turns: npt.NDArray[np.int64],
    windows: Windows,
) -> Alikeness:
    chosen = zip(thumbs[pairs[:, 0]].astype(np.float32), turns, strict=True)
    first = np.stack([turned(picture, int(turn)) for picture, turn in chosen])
    second = thumbs[pairs[:, 1]].astype(np.float32)
    spans = np.array(windows, np.float32)[pairs[:, 2]]  # (M, 2 axes, start and end)
    place = np.stack([spans[..., 0], spans[..., 1] - spans[..., 0]], axis=-1)  # start and extent
    halves = _halved(first), _halved(second)
    place = _aligned(_blurred(halves[0], _BLUR), _blurred(halves[1], _BLUR), place, _COARSE_STEPS)
    place = _aligned(_blurred(first, _BLUR), _blurred(second, _BLUR), place, _FINE_STEPS)
    inner = (slice(None), slice(_EDGE, -_EDGE), slice(_EDGE, -_EDGE))
    corners = np.stack([place[..., 0], place.sum(axis=-1) - 1])
    grain = _shared_grain(first, _sampled(second, place))
    moved = _sampled(_blurred(second, 0.5), place)
    first = _blurred(first, 0.5)
    return Alikeness(
        _correlation(first[inner], moved[inner]),
        _correlation(_detail(first)[inner], _detail(moved)[inner]),
        grain,
        np.abs(corners).max(axis=(0, 2)) * first.shape[-1],
        np.clip(place[..., 1], 0, 1).prod(axis=1).astype(np.float32),
    )


def _aligned(first: Floats, second: Floats, place: Floats, steps: int) -> Floats:
    """Start and extent (M, 2, 2) of the window of `second` that is most like `first`."""
    side = first.shape[-1]
    target = _standard(first)
    axis = ((np.arange(side) + 0.5) / side).astype(np.float32)
    origin = place
    for _ in range(steps):
        seen = _standard(_sampled(second, place))
        rows, columns = np.gradient(seen, 1 / side, axis=(1, 2))
        shapes = np.stack([rows, rows * axis[:, None], columns, columns * axis], axis=1)
        shapes = shapes.reshape(len(first), 4, -1)
        normal = shapes @ shapes.swapaxes(1, 2)
        normal += (
            np.eye(4, dtype=np.float32)
            * (1e-3 * np.trace(normal, axis1=1, axis2=2) + 1e-3)[:, None, None]
        )
        error = (target - seen).reshape(len(first), -1, 1)
        step = np.linalg.solve(normal, shapes @ error)[..., 0].reshape(-1, 2, 2)
        # The gradient is taken in the window's own coordinates, which span `extent`.
        place = place + (np.clip(step, -0.05, 0.05) * place[..., 1:]).astype(np.float32)
        place = np.clip(place, origin - _LIMIT, origin + _LIMIT)
    return place


def _sampled(pictures: Floats, place: Floats) -> Floats:
    """The window of each picture (M, P, P) at `place`, as large as the picture; bilinear."""
    side = pictures.shape[-1]
    axis = ((np.arange(side) + 0.5) / side).astype(np.float32)
    spots = (place[..., :1] + place[..., 1:] * axis) * side - 0.5  # (M, 2, P)
    spots = np.clip(spots, 0, side - 1.001)
    low = spots.astype(np.int64)
    part = (spots - low).astype(np.float32)
    number = np.arange(len(pictures))[:, None]
    rows = pictures[number, low[:, 0]] * (1 - part[:, 0])[..., None]
    rows = rows + pictures[number, low[:, 0] + 1] * part[:, 0][..., None]  # (M, P, P)
    columns = low[:, 1][:, None, :].repeat(side, axis=1)
    weight = part[:, 1][:, None, :]
    left = np.take_along_axis(rows, columns, axis=2)
    right = np.take_along_axis(rows, columns + 1, axis=2)
    mixed: Floats = left * (1 - weight) + right * weight
    return mixed


def _halved(pictures: Floats) -> Floats:
    half = pictures.shape[-1] // 2
    mean: Floats = pictures.reshape(-1, half, 2, half, 2).mean(axis=(2, 4))
    return mean


def _blurred(pictures: Floats, sigma: float) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(pictures, (0, sigma, sigma), mode="nearest")
    return blurred


def _detail(pictures: Floats) -> Floats:
    return pictures - _blurred(pictures, _WIDE)


def _shared_grain(first: Floats, second: Floats) -> Floats:
    """Correlation (M,) of the noise where neither picture has edges; NaN where there is none.

    Two pictures of one plain shape lie well over each other without being copies: their noise
    tells them apart.
    """
    fine = [pictures - _blurred(pictures, _GRAIN) for pictures in (first, second)]
    flat = np.ones(first.shape, np.bool_)
    for pictures in (first, second):
        slope = np.hypot(*np.gradient(_blurred(pictures, 1.0), axis=(1, 2)))
        flat &= ndimage.maximum_filter(slope, (1, 11, 11)) <= _FLAT * np.median(
            slope, axis=(1, 2), keepdims=True
        )
    flat[:, :_EDGE] = flat[:, -_EDGE:] = flat[:, :, :_EDGE] = flat[:, :, -_EDGE:] = False
    count = flat.sum(axis=(1, 2))
    power = [(grain**2 * flat).sum(axis=(1, 2)) for grain in fine]
    shared = (fine[0] * fine[1] * flat).sum(axis=(1, 2)) / np.sqrt(power[0] * power[1] + 1e-12)
    known = (count >= _FEWEST) & (np.minimum(*power) / np.maximum(count, 1) > _SILENT**2)
    chance = _DEVIATIONS / np.sqrt(np.maximum(count, 1))
    shared = np.where(shared > chance, shared, 0)
    return np.where(known, shared, np.nan).astype(np.float32)


def _standard(pictures: Floats) -> Floats:
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    deviation = centred.std(axis=(1, 2), keepdims=True)
    return np.asarray(centred / np.maximum(deviation, 1e-6), np.float32)


def _correlation(first: Floats, second: Floats) -> Floats:
    product = (_standard(first) * _standard(second)).mean(axis=(1, 2))
    return np.asarray(product, np.float32)
