"""The cache folder of this machine, and small results that are kept in it.

    <cache folder>/<fingerprint>/                 a decoded data set: unetexp/data/cache/
    <cache folder>/<hash of the masks>.labels.npy      which mask holds which values
    <cache folder>/<hash of the masks>.values.json     colours and other wide values
    <cache folder>/<hash of a volume>.foreground.npy   the share of foreground in its slices

It is $UNETEXP_CACHE, or the user's cache folder.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import platformdirs

from unetexp.errors import DataError

CACHE_VARIABLE = "UNETEXP_CACHE"
Scalar = TypeVar("Scalar", bound=np.generic)


def cache_folder() -> Path:
    """The folder of decoded data sets on this machine."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return (
        Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("unetexp")
    )


@contextmanager
def explained_write_errors() -> Iterator[None]:
    """Turn file system errors in the cache folder into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The cache folder {cache_folder()} cannot be used: {error.strerror or error}. "
            f"Free space or allow writing there, or set {CACHE_VARIABLE} to a writable folder."
        ) from error


def remembered(name: str, read: Callable[[], bytes]) -> bytes:
    """The content of the file `name` in the cache folder, or of `read`, which is then kept there.

    Raises DataError if the cache folder cannot be written, and what `read` raises.
    """
    place = cache_folder() / name
    try:
        return place.read_bytes()
    except OSError:
        content = read()
    _keep(place, lambda scratch: scratch.write_bytes(content))
    return content


def remembered_array(
    name: str,
    shape: tuple[int, ...],
    dtype: type[Scalar],
    read: Callable[[], npt.NDArray[Scalar]],
) -> npt.NDArray[Scalar]:
    """As `remembered`, of an array of `shape` and `dtype` in a file `name` that ends in .npy."""
    place = cache_folder() / name
    try:
        kept: npt.NDArray[Any] = np.load(place, allow_pickle=False)
        if kept.shape == shape and kept.dtype == dtype:
            return kept
    except (OSError, ValueError, EOFError):
        pass  # missing or damaged: read again
    found = read()
    _keep(place, lambda scratch: np.save(scratch, found))
    return found


def write_whole(place: Path, write: Callable[[Path], object]) -> None:
    """A file that is there in full or not at all; `write` is given a path with its ending."""
    scratch = place.with_name(f"{place.name}.{uuid.uuid4().hex}{place.suffix}")
    try:
        write(scratch)
        scratch.replace(place)
    finally:
        scratch.unlink(missing_ok=True)


def _keep(place: Path, write: Callable[[Path], object]) -> None:
    with explained_write_errors():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, write)
