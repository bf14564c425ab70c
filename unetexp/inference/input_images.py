"""The images that a command was given, and the names of the results for each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unetexp.data.layouts.scanning import SUFFIXES
from unetexp.errors import ConfigError, DataError

OVERLAY, PROBABILITIES = "_overlay.png", "_probabilities.npy"


@dataclass(frozen=True)
class Input:
    """An image file and where its results go."""

    path: Path
    stem: Path  # relative to the folder of results, without extension

    def labels(self, out: Path) -> Path:
        return self._named(out, ".png")

    def overlay(self, out: Path) -> Path:
        return self._named(out, OVERLAY)

    def probabilities(self, out: Path) -> Path:
        return self._named(out, PROBABILITIES)

    def _named(self, out: Path, ending: str) -> Path:
        return out / self.stem.with_name(self.stem.name + ending)


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
