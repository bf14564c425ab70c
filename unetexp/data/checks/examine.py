"""Every pair is decoded once, in threads; what cannot be read is recorded and does not stop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import ExifTags, Image

from unetexp.data.checks.facts import PixelFacts, SampleFacts, pixel_facts
from unetexp.data.collection import Labels, Pair, Progress, RawImage
from unetexp.data.files.file_sample import FileSample
from unetexp.data.files.sample_loading import SampleLoader
from unetexp.data.threads import mapped_and_told
from unetexp.errors import DataError

UNREADABLE, TRUNCATED, REFUSED_MASK, REFUSED_IMAGE, TURNED = (
    "unreadable",
    "truncated",
    "wrong-labels",
    "unsupported-image",
    "size-mismatch",
)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TAIL = 2**16


@dataclass(frozen=True)
class Item:
    """One pair, with the function that decodes it; it may be called from any thread."""

    name: str
    split: str
    images: tuple[Path, ...]
    mask: Path
    load: Callable[[], tuple[RawImage, Labels]]  # (C, H, W), (H, W)
    part: str = ""
    group: str = ""


def items_of_files(
    splits: Mapping[str, Sequence[FileSample]], loader: SampleLoader
) -> Iterator[Item]:
    """The items of samples on disk."""
    for split, samples in splits.items():
        for each in samples:
            yield Item(
                name=each.name,
                split=split,
                images=each.files[:-1],
                mask=each.mask,
                load=partial(loader.load, each),
                part=each.part,
                group=each.group,
            )


def items_of_pairs(splits: Mapping[str, Sequence[Pair]]) -> Iterator[Item]:
    """The items of a source that has no files of its own."""
    for split, pairs in splits.items():
        for pair in pairs:
            yield Item(pair.name, split, (Path(pair.name),), Path(pair.mask_file), pair.load)


def examine(items: Sequence[Item], on_progress: Progress | None = None) -> list[SampleFacts]:
    """The facts of each item, in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what becomes a finding
        return list(mapped_and_told(_examined, items, "Examining images", on_progress))


def _examined(item: Item) -> SampleFacts:
    pixels: PixelFacts | None = None
    fault, message, fault_file = "", "", None
    try:
        pixels = pixel_facts(*item.load())
    except DataError as error:
        message = str(error)
        about_mask = message.startswith(str(item.mask))
        named = [path for path in (item.mask, *item.images) if message.startswith(str(path))]
        fault_file = named[0] if named else item.images[0]
        fault = _fault_of(fault_file, REFUSED_MASK if about_mask else REFUSED_IMAGE)
        if "data.exif=" in message:
            fault = TURNED
    return SampleFacts(
        name=item.name,
        split=item.split,
        images=item.images,
        mask=item.mask,
        part=item.part,
        group=item.group,
        pixels=pixels,
        fault=fault,
        message=message,
        fault_file=fault_file,
        orientation=orientation_of(item.images[0]),
    )


def _fault_of(path: Path, refused: str) -> str:
    """What is wrong with a file that the reader refuses."""
    try:
        data = path.read_bytes()
    except OSError:
        return UNREADABLE
    if not data or _is_cut(data):
        return TRUNCATED
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # a decoder may raise anything on damaged bytes
        return TRUNCATED if "truncated" in str(error) else UNREADABLE
    return refused


def _is_cut(data: bytes) -> bool:
    """Whether the mark at the end of a PNG or JPEG is missing."""
    if data.startswith(_PNG):
        return b"IEND" not in data[-_TAIL:]
    return data.startswith(_JPEG) and b"\xff\xd9" not in data[-_TAIL:]


def orientation_of(path: Path) -> int:
    """The EXIF orientation of an image file, 1 where it has none or is no image file."""
    try:
        with path.open("rb") as file:
            if file.read(8) == _PNG:
                file.seek(0)
                data = file.read()
                if b"eXIf" not in data and b"Raw profile type exif" not in data:
                    return 1  # Pillow would decode the whole image to find that out
        with Image.open(path) as image:
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged, or no file: told elsewhere
        return 1
    return found if found in range(1, 9) else 1
