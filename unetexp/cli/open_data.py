"""Opening a data set for somebody who watches the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress

from unetexp.component import decode, kinds_of
from unetexp.data import Dataset, DataSource, Folder, open_dataset
from unetexp.data.sources.file_source import absolute
from unetexp.errors import ConfigError
from unetexp.training.config import decode_config


def source_of(
    place: str, known: DataSource, changes: Mapping[str, Any] | None = None
) -> DataSource:
    """The source that `place` names: a kind such as `mni152`, or a folder of images and masks.

    Settings, such as the seed of a split, are those of `known` where it is of the same kind, so
    that the same images are split alike; then come `changes`, by paths below `data`. Raises
    ConfigError.
    """
    source = _named(place, known)
    if not changes:
        return source
    for path in changes:
        if not path.startswith("data."):
            raise ConfigError(f"--set {path}: only the data's settings, data.*, can be set here.")
    return decode_config({"data": source.tree()}, dict(changes)).data


def _named(place: str, known: DataSource) -> DataSource:
    if place in kinds_of(DataSource) and place != "folder":
        return known if known.kind == place else decode(DataSource, {"kind": place}, "DATA")
    if isinstance(known, Folder):
        return known.model_copy(update={"root": absolute(place)})
    return decode(DataSource, {"kind": "folder", "root": place}, "DATA")


def open_aloud(source: DataSource, console: Console, *, to_train: bool = True) -> Dataset:
    """The data set of `source`, with a progress bar and what is to be said about it.

    `to_train` as in `open_dataset`.
    """
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("data")
        data = open_dataset(
            source,
            on_progress=lambda what, done, total: progress.update(
                task, description=what, completed=done, total=total
            ),
            to_train=to_train,
        )
    for note in data.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    return data
