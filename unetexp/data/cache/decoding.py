"""A sample from its files: decoded, checked and scaled to the working size.

The same functions serve the cache and a set that has no room there, so that both have the same
pixels. C channels, H W image size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock, local
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unetexp.data.collection import Collection, Labels, Pair, Progress, RawImage
from unetexp.data.files.file_hashing import known_digests
from unetexp.data.resizing import (
    Resize,
    plain,
    resize_value,
    resized_image,
    resized_mask,
    working_size,
)
from unetexp.errors import DataError


class Collects(Protocol):
    """A source of files."""

    def collect(self, on_progress: Progress | None = None) -> Collection:
        """Its samples."""

    def tree(self) -> dict[str, Any]:
        """Its settings."""


def loaded(pair: Pair) -> tuple[RawImage, Labels]:
    """The image and the stored values of its mask; DataError unless their sizes agree."""
    image, mask = pair.load()
    if image.shape[1:] != mask.shape:
        turned = image.shape[:0:-1] == mask.shape
        hint = "One of them is rotated: check its EXIF tag. " if turned else ""
        raise DataError(
            f"{pair.mask_file}: the mask is {mask.shape[0]} x {mask.shape[1]} pixels (height x "
            f"width), its image {image.shape[1]} x {image.shape[2]}. {hint}"
            "Make the mask as large as the image."
        )
    return image, mask


def at_working_size(image: RawImage, resize: Resize | None) -> RawImage:
    """The image (C, H, W) scaled as `resize` says."""
    return resized_image(image, working_size(resize, image.shape[1], image.shape[2]))


def classes_at(
    stored: Labels, table: npt.NDArray[np.uint8], resize: Resize | None
) -> tuple[Labels, Labels]:
    """Classes of stored values (H, W) by `table` (256,): at the working size, and at their own."""
    classes: Labels = table[stored]
    return resized_mask(classes, working_size(resize, *classes.shape)), classes


class FileDecoder:
    """The samples of a split, decoded from their files each time.

    Pickles without them: another process finds the samples again from the source, and takes the
    files' hashes from `place`, where the set's index is. May be used from any thread.
    """

    def __init__(
        self,
        source: Collects,
        place: Path,
        split: str,
        resize: Resize | None,
        table: Sequence[int],
        ceiling: int | None = None,
        pairs: Sequence[Pair] | None = None,
    ) -> None:
        """`table` (256,): the class of each stored value. `pairs`: the samples, where known.

        Values of 16 bits above `ceiling` are set to it.
        """
        self._source, self._place, self._split = source, place, split
        self._resize, self._table, self._pairs = resize, tuple(table), pairs
        self._ceiling = ceiling
        self._finding, self._last = Lock(), local()

    def __reduce__(self) -> tuple[Any, ...]:
        return FileDecoder, (
            self._source,
            self._place,
            self._split,
            self._resize,
            self._table,
            self._ceiling,
        )

    def decoded(self, index: int) -> tuple[RawImage, Labels, Labels]:
        """Image (C, H, W) and classes at the working size, and classes at the image's own."""
        if getattr(self._last, "index", None) != index:  # a whole image is asked for in parts
            image, stored = loaded(self._found()[index])
            kept, own = classes_at(stored, np.array(self._table, np.uint8), self._resize)
            scaled = at_working_size(image, self._resize)
            if self._ceiling is not None and scaled.itemsize == 2:
                scaled = np.minimum(scaled, np.uint16(self._ceiling))
            self._last.found = scaled, kept, own
            self._last.index = index
        found: tuple[RawImage, Labels, Labels] = self._last.found
        return found

    def classes(self, index: int) -> Labels:
        """The classes (H, W) at the working size; the image is not decoded for them."""
        pair = self._found()[index]
        if pair.load_mask is None:
            return self.decoded(index)[1]
        return classes_at(pair.load_mask(), np.array(self._table, np.uint8), self._resize)[0]

    def _found(self) -> Sequence[Pair]:
        with self._finding:
            if self._pairs is None:
                with known_digests(read_digests(self._place)):
                    self._pairs = self._source.collect().pairs()[self._split]
            return self._pairs

    def tree(self) -> dict[str, Any]:
        """All that it takes, JSON-safe."""
        return {
            "source": self._source.tree(),
            "place": str(self._place),
            "split": self._split,
            "resize": plain(self._resize),
            "table": list(self._table),
            "ceiling": self._ceiling,
        }

    @classmethod
    def of_tree(cls, source: Collects, tree: Mapping[str, Any]) -> FileDecoder:
        """The decoder that a `tree` tells of."""
        resize = resize_value(tree["resize"])
        place = Path(tree["place"])
        return cls(source, place, tree["split"], resize, tree["table"], tree["ceiling"])


def write_digests(place: Path, digests: Mapping[Path, str]) -> None:
    """Keep the files' hashes beside the set's index."""
    text = json.dumps({str(path): digest for path, digest in digests.items()})
    (place / _DIGESTS).write_text(text, encoding="utf-8")


def read_digests(place: Path) -> dict[Path, str]:
    """The hashes that were kept; none where the file is missing: they are made again."""
    try:
        kept = json.loads((place / _DIGESTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {Path(path): str(digest) for path, digest in kept.items()}


_DIGESTS = "digests.json"
