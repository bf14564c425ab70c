"""The ways to read a folder as images with masks.

A layout says in which folders images and masks lie; which file belongs to which is said by names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from unetexp.data.files.pairing import MASK_WORDS, Match
from unetexp.data.layouts.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    key_of,
    masks_of_split,
    normal,
    split_and_key,
    split_of,
)
from unetexp.data.layouts.paired_files import Files, paired, paired_together
from unetexp.data.layouts.scanning import Scan, entries
from unetexp.data.reading.formats.detection import SUFFIXES
from unetexp.errors import DataError, listed

_ASIDE = (".txt", ".md", ".pdf", ".html", ".zip", ".gz", ".tgz", ".tar", ".7z", ".rar")
_DEPTH = 3  # folders above those of images and masks

Place = tuple[tuple[str, ...], Path]  # folders and stem, and the file


@dataclass(frozen=True)
class Part:
    """A folder of images and one of masks; `masks` None: they lie beside the images."""

    images: Path
    masks: Path | None
    split: str | None = None
    within: tuple[str, ...] = ()  # folders that belong to the files' names


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie."""

    parts: tuple[Part, ...]
    settings: str  # of the command line, which choose this layout
    guess: bool = False  # only where nothing else is possible, and it leaves nothing alone

    def describe(self, root: Path) -> str:
        """The layout in words."""
        images = [_below(part.images, root) for part in self.parts]
        masks = [_below(part.masks, root) for part in self.parts if part.masks is not None]
        if not masks:
            return f"images and masks lie together in {listed(images)}"
        return f"images lie in {listed(images)}, masks in {listed(masks)}"


def layouts_of(root: Path) -> list[Layout]:
    """Every layout that the names of the folders in `root` allow, the plainest first."""
    folders = [root / entry.name for entry in entries(root) if entry.is_dir()]
    images = [f for f in folders if normal(f.name) in IMAGE_FOLDERS]
    masks = _with_images([f for f in folders if normal(f.name) in MASK_FOLDERS])
    found = list(_by_split(folders))
    found += [_flat(root, image, mask) for image, mask in product(images, masks)]
    if images and not masks and not found:
        found += [Layout((Part(image, None),), setting("images", image.name)) for image in images]
    if not found and not images and not masks:
        found += [Layout((Part(root, None),), "--set data.images=."), *_nested(root)]
        if len(folders) == 2:
            pairs = (folders, folders[::-1])
            found += [replace(_flat(root, *pair), guess=True) for pair in pairs]
    return found


def _with_images(folders: Sequence[Path]) -> list[Path]:
    """The folders with files that are images, or all where none has any."""
    held = [f for f in folders if len(folders) == 1 or holds_images(f)]
    return held or list(folders)


def holds_images(folder: Path) -> bool:
    """Whether there are image files in a folder, or folders."""
    return any(e.is_dir() or Path(e.name).suffix.lower() in SUFFIXES for e in entries(folder))


def _nested(root: Path) -> Iterator[Layout]:
    """The layout in which deeper folders, such as days, hold folders of images and masks."""
    parts = [
        replace(part, within=part.images.parent.relative_to(root).parts)
        for part in _parts_below(root, _DEPTH)
    ]
    if parts:
        images, masks = parts[0].images.name, parts[0].masks
        settings = f"{setting('images', f'**/{images}')} "
        settings += setting("masks", f"**/{masks.name if masks else ''}")
        yield Layout(tuple(parts), settings, guess=True)


def _parts_below(folder: Path, depth: int) -> Iterator[Part]:
    for entry in entries(folder):
        if not entry.is_dir() or not depth:
            continue
        inner = folder / entry.name
        whole = [part for part in _inside(inner) if part.masks is not None]
        yield from whole or _parts_below(inner, depth - 1)


def wrapped(root: Path) -> Path:
    """The only folder in `root`, and in that one, where unpacking left them around the data."""
    for _ in range(3):
        there = [
            e for e in entries(root) if e.is_dir() or Path(e.name).suffix.lower() not in _ASIDE
        ]
        known = {normal(e.name) for e in there} & (IMAGE_FOLDERS | MASK_FOLDERS)
        if len(there) != 1 or not there[0].is_dir() or known or split_of(there[0].name):
            break
        root = root / there[0].name
    return root


def files_of(layout: Layout, scan: Scan, mask_suffix: str | None = None) -> Files:
    """The files of a layout, and their pairs. Raises DataError for a file that is no image."""
    apart = all(part.masks is not None for part in layout.parts)
    images: list[tuple[str, Path]] = []
    masks: list[tuple[str, Path]] = []
    for part in layout.parts:
        loose = part.masks is None and part.images == scan.root
        found = scan.loose(part.images) if loose else list(scan.files(part.images))
        if loose and not found:
            return _in_folders(scan, mask_suffix)
        images += [(_key((*part.within, *place), part.split), path) for place, path in found]
        if part.masks is not None:
            inside = scan.files(part.masks)
            masks += [(_key((*part.within, *place), part.split), path) for place, path in inside]
    return paired(images, masks, mask_suffix) if apart else paired_together(images, mask_suffix)


def _in_folders(scan: Scan, mask_suffix: str | None) -> Files:
    """Images beside their masks, in a folder each patient or site; nothing where some are alone."""
    found = [
        (with_split((folder.name, *parts)), path)
        for folder in scan.folders(scan.root)
        for parts, path in scan.loose(folder)
    ]
    files = paired_together(found, mask_suffix)
    return files if files.match.complete else Files({}, {}, Match(()))


def guessed(layout: Layout, scan: Scan, mask_suffix: str | None = None) -> Files | None:
    """The files of a layout that is a guess, if the names of folders or masks confirm it."""
    try:
        files = files_of(layout, scan, mask_suffix)
    except DataError:
        return None
    affix = files.match.mask_affix
    word = (affix.after or affix.before).strip("_-. ").lower()
    known = {each.lower() for each in MASK_WORDS}
    confirmed = word in known or any(part.within for part in layout.parts)
    return files if files.match.complete and confirmed else None


def with_split(parts: Sequence[str]) -> str:
    """The key of a file's place, with the split that its folders name."""
    split, key = split_and_key(parts)
    return f"{split}:/{key}" if split else key


def split_and_name(key: str) -> tuple[str | None, str]:
    """The split, None where the folders name none, and the name of a key of `with_split`."""
    split, colon, name = key.partition(":/")
    return (split, name) if colon else (None, key)


def _key(parts: Sequence[str], split: str | None) -> str:
    return f"{split}:/{key_of(parts)}" if split else with_split(parts)


def _by_split(folders: Sequence[Path]) -> Iterator[Layout]:
    """The layout in which splits are the folders at the top."""
    splits = {f: split for f in folders if (split := split_of(f.name))}
    if not splits:
        return
    beside = {split: f for f in folders if (split := masks_of_split(f.name))}
    if set(splits.values()) & set(beside):
        parts = [Part(f, beside.get(split), split) for f, split in splits.items()]
        yield Layout(tuple(p for p in parts if p.masks), "--set 'data.images=train'")
        return
    parts = [replace(part, split=split) for f, split in splits.items() for part in _inside(f)]
    images, masks = parts[0].images.name, parts[0].masks.name if parts[0].masks else None
    settings = f"--set 'data.images=*/{images}'"
    yield Layout(tuple(parts), settings + (f" --set 'data.masks=*/{masks}'" if masks else ""))


def _inside(folder: Path) -> list[Part]:
    """The parts in a split's folder, where images and masks have folders of their own or not."""
    names = [folder / entry.name for entry in entries(folder) if entry.is_dir()]
    images = [f for f in names if normal(f.name) in IMAGE_FOLDERS]
    masks = [f for f in names if normal(f.name) in MASK_FOLDERS]
    if images and masks:
        return [Part(images[0], masks[0])]
    if images or masks:  # one is missing, unless they lie together
        return [Part((images or masks)[0], None)]
    return [Part(folder, None)]


def _flat(root: Path, images: Path, masks: Path) -> Layout:
    settings = f"{setting('images', images.name)} {setting('masks', masks.name)}"
    return Layout((Part(images, masks),), settings)


def setting(name: str, value: str) -> str:
    """The `--set` of a setting of the data, to paste."""
    quoted = f"'data.{name}={value}'" if not value.isidentifier() else f"data.{name}={value}"
    return f"--set {quoted}"


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else str(root)
