"""Collections whose images and masks are files, known by the files' content.

C channels, H W image size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetexp.data.collection import Collection, Labels, Pair, Progress, RawImage
from unetexp.data.file_hashing import file_digests
from unetexp.data.image_decoding import read_image, read_mask

_DECODING = 1  # raised when the same file is decoded to other pixels than before


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file."""

    name: str
    image: Path
    mask: Path

    def load(self) -> tuple[RawImage, Labels]:
        """The decoded image (C, H, W) and mask (H, W)."""
        return read_image(self.image), read_mask(self.mask)


def collect_files(
    root: Path,
    splits: Mapping[str, Sequence[FilePair]],
    *,
    class_names: tuple[str, ...] | None,
    split_record: Mapping[str, Any],
    load: Callable[[FilePair], tuple[RawImage, Labels]] = FilePair.load,
    on_progress: Progress | None = None,
) -> Collection:
    """The collection of `splits`; reads every file once for its content hash.

    The same content under the same names below another `root` is the same collection.
    """
    pairs = [pair for members in splits.values() for pair in members]
    paths = [path for pair in pairs for path in (pair.image, pair.mask)]
    digests = dict(zip(paths, file_digests(paths, on_progress), strict=True))
    content = {
        "decoding": _DECODING,
        "classes": class_names,
        "split": dict(split_record),
        "files": {
            name: [
                [path.relative_to(root).as_posix(), digests[path]]
                for pair in members
                for path in (pair.image, pair.mask)
            ]
            for name, members in splits.items()
        },
    }

    return Collection(
        where=str(root),
        fingerprint=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        pairs=lambda: {
            name: [_pair(pair, load) for pair in members] for name, members in splits.items()
        },
        class_names=class_names,
        split_record=split_record,
        notes=_leaks(splits, digests),
    )


def _pair(pair: FilePair, load: Callable[[FilePair], tuple[RawImage, Labels]]) -> Pair:
    return Pair(pair.name, str(pair.mask), lambda: load(pair))


def _leaks(
    splits: Mapping[str, Sequence[FilePair]], digests: Mapping[Path, str]
) -> tuple[str, ...]:
    """A note for each split that holds images of the train split."""
    train = {digests[pair.image]: pair.name for pair in splits["train"]}
    notes = []
    for name, members in splits.items():
        copies = [pair.name for pair in members if digests[pair.image] in train]
        if name != "train" and copies:
            notes.append(
                f"{len(copies)} of the {len(members)} images in the {name} split are also in the "
                f"train split (such as {copies[0]}): figures on {name} will look too good."
            )
    return tuple(notes)
