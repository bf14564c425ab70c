"""Opening a data set for somebody who watches the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from unetexp.cli.progress import shown_progress
from unetexp.component import decode
from unetexp.data import Dataset, DataSource, open_dataset
from unetexp.data.layouts.paragraph import paragraph
from unetexp.data.sources.recognised import recognised_tree
from unetexp.errors import ConfigError
from unetexp.training.config import decode_config


def source_of(
    place: str, known: DataSource, changes: Mapping[str, Any] | None = None
) -> DataSource:
    """The source that `place` names: a kind such as `mni152`, a folder of images, or a table.

    Settings, such as the seed of a split, are those of `known` where it is of the same kind, so
    that the same images are split alike; then come `changes`, by paths below `data`. Raises
    ConfigError, and DataError where it can be read as two kinds.
    """
    for path in changes or {}:
        if not path.startswith("data."):
            raise ConfigError(f"--set {path}: only the data's settings, data.*, can be set here.")
    tree = recognised_tree(place, changes)
    if tree["kind"] == known.kind:
        tree = {**known.tree(), **tree}
    source: DataSource = decode(DataSource, tree, "DATA")
    if not changes:
        return source
    return decode_config({"data": source.tree()}, dict(changes)).data


def open_aloud(source: DataSource, console: Console, *, to_train: bool = True) -> Dataset:
    """The data set of `source`, with a progress bar and what is to be said about it.

    `to_train` as in `open_dataset`.
    """
    with shown_progress(console) as on_progress:
        data = open_dataset(source, on_progress=on_progress, to_train=to_train)
    console.print(f"data: {paragraph(source, data)}", markup=False)
    for note in data.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    return data
