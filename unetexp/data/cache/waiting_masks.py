"""What becomes of a sample while a set is built; its mask waits, packed, for its classes.

C channels, H W image size.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unetexp.data.cache.decoding import at_working_size, classes_at, loaded
from unetexp.data.collection import Labels, Pair, RawImage
from unetexp.data.labels import VOID
from unetexp.data.resizing import Resize

_QUICK = 1  # zlib's level: labels shrink to a hundredth even so


class LoadedSample(NamedTuple):
    """A decoded sample."""

    image: RawImage  # (C, H, W), at the working size
    shape: tuple[int, int]  # H, W before
    counts: npt.NDArray[np.int32]  # (256,) stored values
    mask: bytes  # the stored values, compressed


def load_sample(pair: Pair, resize: Resize | None) -> LoadedSample:
    """Decode a sample, scale its image, and pack its mask as it is stored."""
    image, mask = loaded(pair)
    counts = np.bincount(mask.reshape(-1), minlength=VOID + 1).astype(np.int32)
    packed = zlib.compress(mask.tobytes(), _QUICK)
    return LoadedSample(at_working_size(image, resize), mask.shape, counts, packed)


def kept_classes(
    stored: tuple[bytes, tuple[int, int]],
    table: npt.NDArray[np.uint8],
    resize: Resize | None,
) -> tuple[Labels, npt.NDArray[np.int64], bytes]:
    """The classes at the working size, their counts before, and the whole mask compressed."""
    packed, shape = stored
    values = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
    kept, original = classes_at(values, table, resize)
    if resize is None:
        return kept, np.zeros(VOID + 1, np.int64), b""
    before = np.bincount(original.reshape(-1), minlength=VOID + 1)
    return kept, before, zlib.compress(original.tobytes(), _QUICK)


def waiting_masks(path: Path, sizes: Sequence[int]) -> Iterator[bytes]:
    """The packed masks of these sizes in a file, one after the other."""
    with path.open("rb") as file:
        for size in sizes:
            yield file.read(size)


def waiting_mask(path: Path, sizes: Sequence[int], index: int, shape: tuple[int, int]) -> Labels:
    """One of the masks in a file, unpacked."""
    with path.open("rb") as file:
        file.seek(sum(sizes[:index]))
        packed = file.read(sizes[index])
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
