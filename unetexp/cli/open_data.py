"""Opening a data set for somebody who watches the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress

from unetexp.component import decode, kinds_of
from unetexp.data import Dataset, DataSource, Folder, open_dataset
from unetexp.data.sources.folder import absolute


def source_of(place: str, known: DataSource) -> DataSource:
    """The source that `place` names: a kind such as `mni152`, or a folder of images and masks.

    Settings, such as the seed of a split, are those of `known` where it is of the same kind, so
    that the same images are split alike.
    """
    if place in kinds_of(DataSource) and place != "folder":
        return known if known.kind == place else decode(DataSource, {"kind": place}, "DATA")
    if isinstance(known, Folder):
        return known.model_copy(update={"root": absolute(place)})
    return decode(DataSource, {"kind": "folder", "root": place}, "DATA")


def open_aloud(source: DataSource, console: Console) -> Dataset:
    """The data set of `source`, with a progress bar and what is to be said about it."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("data")
        data = open_dataset(
            source,
            on_progress=lambda what, done, total: progress.update(
                task, description=what, completed=done, total=total
            ),
        )
    for note in data.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    return data
