"""The copies and the neighbours among pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unetexp.data.checks.copies.alignment import TURNS, alikeness
from unetexp.data.checks.copies.candidates import candidates, turns_of_pairs, windows_for

MOST_COMPARED = 6000  # pairs that are laid over each other; others with like hashes are not
_HASHES_AGREE = 0.55  # likeness of the hashes with signs; of different pictures 99 % are below
_COPY = 0.92  # correlation of fine structure; copies after JPEG, cutting, turning reach 0.94
_SAME, _IN_PLACE_PX = 0.97, 0.5  # where nothing moved, no noise need be shared
_FRAME = 0.85  # the same of neighbouring frames
_SHARED_GRAIN = 0.2  # correlation of the noise of copies
_FEW = 2  # look-alikes without noise: more are pictures of one plain shape, not copies
_NEAR = 15  # frames or slices between neighbours
_MOST_WITHIN = 3  # compared within a split; across splits all candidates are
_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$")


@dataclass(frozen=True)
class Alike:
    """Two samples that show the same thing."""

    first: int
    second: int
    score: float  # 0 to 1
    how: str  # `mirrored left to right, 86 % of the picture`
    frames: bool  # neighbours by their names: of a video or a volume


def alike_pairs(
    thumbs: npt.NDArray[np.float16],
    names: Sequence[str],
    splits: Sequence[str],
    most_compared: int = MOST_COMPARED,
) -> list[Alike]:
    """Near copies among pictures (N, P, P), which are not all 0; the most similar ones first."""
    if len(thumbs) < 2:
        return []
    windows = windows_for(len(thumbs))
    pairs = candidates(thumbs)
    turns, scores = turns_of_pairs(thumbs, pairs, windows)
    kept = _worth_aligning(pairs, scores, splits)[:most_compared]
    pairs, turns = pairs[kept], turns[kept]
    found = alikeness(thumbs, pairs, turns, windows)
    frames = np.array([_neighbours(names[i], names[j]) for i, j, _ in pairs.tolist()], np.bool_)
    certain = found.grain >= _SHARED_GRAIN
    noiseless = np.isnan(found.grain) & (found.fine >= _COPY)
    noiseless &= _rare(pairs[:, :2], noiseless)
    in_place = (found.moved <= _IN_PLACE_PX) & (found.fine >= _SAME)
    copies = (found.fine >= _COPY) & (certain | noiseless | in_place)
    chosen = np.flatnonzero(copies | (frames & (found.fine >= _FRAME)))
    best: dict[tuple[int, int], Alike] = {}
    for number in chosen[np.argsort(-found.fine[chosen], kind="stable")].tolist():
        first, second = sorted(pairs[number, :2].tolist())
        how = _how(int(turns[number]), float(found.covered[number]))
        pair = Alike(first, second, float(found.fine[number]), how, bool(frames[number]))
        best.setdefault((first, second), pair)
    return list(best.values())


def grouped(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Samples that hang together by pairs, each group in order."""
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    size = int(max(rows.max(), columns.max())) + 1
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, labels = connected_components(links, directed=False)
    groups: dict[int, list[int]] = {}
    for member in np.unique([rows, columns]).tolist():
        groups.setdefault(int(labels[member]), []).append(member)
    return list(groups.values())


def _worth_aligning(
    pairs: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], splits: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Numbers of the pairs whose hashes agree: all across splits, a few of each picture within."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= _HASHES_AGREE]
    _, code = np.unique(np.asarray(splits), return_inverse=True)
    within: dict[int, int] = {}
    across, inside = [], []
    for number in order.tolist():
        first, second = pairs[number, :2].tolist()
        if code[first] != code[second]:
            across.append(number)
        elif within.get(first, 0) < _MOST_WITHIN:
            within[first] = within.get(first, 0) + 1
            inside.append(number)
    return np.array(across + inside, np.int64)


def _rare(pairs: npt.NDArray[np.int64], alike: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether both pictures of a pair have few partners among the pairs that are `alike`."""
    partners: dict[int, set[int]] = {}
    for first, second in pairs[alike].tolist():
        partners.setdefault(first, set()).add(second)
        partners.setdefault(second, set()).add(first)
    return np.array(
        [
            max(len(partners.get(first, ())), len(partners.get(second, ()))) <= _FEW
            for first, second in pairs.tolist()
        ],
        np.bool_,
    )


def _neighbours(first: str, second: str) -> bool:
    """Whether two names differ by a small step of their last number: `take1_0041`, `take1_0043`."""
    one, other = _NUMBER.match(first), _NUMBER.match(second)
    if one is None or other is None or one[3] != other[3]:
        return False
    return one[1] == other[1] and 0 < abs(int(one[2]) - int(other[2])) <= _NEAR


def _how(turn: int, covered: float) -> str:
    cut = f"{covered:.0%} of the picture" if covered < 0.97 else ""
    return ", ".join(filter(None, [TURNS[turn], cut])) or "the same picture"
