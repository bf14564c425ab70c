"""The images that a command was given, and the names of the results for each."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unetexp.data.collection import RawImage
from unetexp.data.reading.formats.detection import SUFFIXES
from unetexp.data.reading.formats.tiff import page_count
from unetexp.data.reading.image_decoding import read_image, read_images
from unetexp.data.reading.input_form import InputForm
from unetexp.errors import ConfigError, DataError

OVERLAY, PROBABILITIES = "_overlay.png", "_probabilities.npy"
UNCERTAINTY = "_uncertainty.png"


@dataclass(frozen=True)
class Input:
    """An image file and where its results go."""

    path: Path
    stem: Path  # relative to the folder of results, without extension
    page: int | None = None  # of a TIFF whose pages are images
    others: tuple[Path | None, ...] = ()  # files that hold further channels

    def read(self, form: InputForm) -> RawImage:
        """The image (C, H, W), as `form` says. Raises DataError."""
        if self.others:
            return read_images([self.path, *self.others], form)
        return read_image(self.path, form, self.page)

    def labels(self, out: Path) -> Path:
        return self._named(out, ".png")

    def overlay(self, out: Path) -> Path:
        return self._named(out, OVERLAY)

    def probabilities(self, out: Path) -> Path:
        return self._named(out, PROBABILITIES)

    def uncertainty(self, out: Path) -> Path:
        return self._named(out, UNCERTAINTY)

    def _named(self, out: Path, ending: str) -> Path:
        return out / self.stem.with_name(self.stem.name + ending)


def find_samples(given: Sequence[Path], out: Path, form: InputForm) -> list[Input]:
    """The images for a model whose input is read as `form` says; see `find_inputs`.

    Where its channels are in several files, as many files are `given`, or as many folders whose
    files have the same names. Raises as `find_inputs`, and ConfigError for another number.
    """
    count = len(form.file_channels)
    if count < 2:
        inputs = find_inputs(given, out)
        return _pages_of(inputs) if form.pages == "samples" else inputs
    if len(given) != count:
        raise ConfigError(
            f"{len(given)} inputs are given, and the model takes {count} files an image, with "
            f"{', '.join(map(str, form.file_channels))} channels: give {count} files, or "
            f"{count} folders whose files have the same names, in that order."
        )
    first, *others = ([*find_inputs([place], out)] for place in given)
    if all(place.is_file() for place in given):
        return [dataclasses.replace(first[0], others=tuple(other[0].path for other in others))]
    places = [{image.stem: image.path for image in other} for other in others]
    return [_beside(image, places, given, form) for image in first]


def _beside(
    image: Input, places: Sequence[dict[Path, Path]], given: Sequence[Path], form: InputForm
) -> Input:
    """The image with its further files; DataError for one that is missing."""
    others = tuple(place.get(image.stem) for place in places)
    if None in others and form.missing == "error":
        folder = given[1 + others.index(None)]
        raise DataError(
            f"{image.path}: {folder} holds no file of the same name, without the extension. Add "
            "it, or take the image out."
        )
    return dataclasses.replace(image, others=others)


def _pages_of(inputs: Sequence[Input]) -> list[Input]:
    """One input for each page of the TIFFs that have several; damaged files stay for later."""
    found = []
    for image in inputs:
        try:
            count = page_count(image.path)
        except DataError:
            count = 1
        if count == 1:
            found.append(image)
            continue
        for page in range(count):
            stem = image.stem.with_name(f"{image.stem.name}_p{page:03d}")
            found.append(dataclasses.replace(image, stem=stem, page=page))
    return found


def find_inputs(given: Sequence[Path], out: Path) -> list[Input]:
    """The images among `given` files and below `given` folders, each once.

    A folder's images keep their paths relative to it. If two would share a name, both get more of
    their path, then their extension. Hidden files, files with other extensions and `out` itself are
    skipped in folders, and links to folders are not followed. Raises DataError if nothing is found
    and for a path that does not exist, ConfigError if a result would replace an image.
    """
    found: dict[Path, Path] = {}  # file -> its name relative to the given folder
    for place in given:
        if place.is_file():
            found.setdefault(place.parent.resolve() / place.name, Path(place.name))
        elif place.is_dir():
            folder = place.resolve()
            for path in _images_below(folder, out.resolve()):
                found.setdefault(path, path.relative_to(folder))
        else:
            raise DataError(f"{place}: there is no such file or folder.")
    if not found:
        raise DataError(
            f"there are no images in {', '.join(map(str, given))}. Give files, or folders that "
            f"hold files ending in {', '.join(SUFFIXES)}."
        )
    inputs = [Input(path, stem) for path, stem in zip(found, _stems(found), strict=True)]
    _check_apart(inputs, out)
    return inputs


def _images_below(folder: Path, out: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        kept = [name for name in folders if name[0] != "." and Path(where, name).resolve() != out]
        folders[:] = sorted(kept)
        for name in sorted(names):
            path = Path(where, name)
            if name[0] != "." and path.suffix.lower() in SUFFIXES and not _is_special(path):
                yield path


def _is_special(path: Path) -> bool:
    """Whether it is a pipe or a device, which would never end. Broken links count as images."""
    return path.exists() and not path.is_file()


def _stems(found: dict[Path, Path]) -> list[Path]:
    """The name of each file's results: the shortest of three forms that is unique."""
    parents = [path.parent for path in found]
    common = Path(os.path.commonpath(parents))
    ways: list[Callable[[Path, Path], Path]] = [
        lambda _, name: name.with_suffix(""),
        lambda path, _: path.relative_to(common).with_suffix(""),
        lambda path, _: path.relative_to(common),
    ]
    stems = [ways[0](path, name) for path, name in found.items()]
    for way in ways[1:]:
        shared = _shared(stems)
        stems = [
            way(path, name) if stem in shared else stem
            for stem, (path, name) in zip(stems, found.items(), strict=True)
        ]
    return stems


def _shared(stems: Sequence[Path]) -> set[Path]:
    """The stems whose results would overwrite those of another, ignoring case."""

    def results(stem: Path) -> list[str]:
        return [f"{stem}{ending}".casefold() for ending in (".png", OVERLAY)]

    count = Counter(name for stem in stems for name in results(stem))
    return {stem for stem in stems if any(count[name] > 1 for name in results(stem))}


def _check_apart(inputs: Sequence[Input], out: Path) -> None:
    images = {path for image in inputs for path in (image.path, image.path.resolve())}
    for image in inputs:
        for result in (image.labels(out), image.overlay(out)):
            if result.parent.resolve() / result.name in images:
                raise ConfigError(
                    f"--out {out}: {result} would overwrite an image that is an input. "
                    "Choose another folder."
                )
