"""Opening a data set for somebody who watches the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from unetexp.cli.progress import shown_progress
from unetexp.component import decode
from unetexp.data import Dataset, DataSource, open_dataset
from unetexp.data.layouts.paragraph import paragraph
from unetexp.data.sources.file_source import FileSource
from unetexp.data.sources.recognised import recognised_tree
from unetexp.errors import ConfigError
from unetexp.models.image_spec import ImageSpec
from unetexp.training.config import decode_config


def source_of(
    place: str, known: DataSource, changes: Mapping[str, Any] | None = None
) -> DataSource:
    """The source that `place` names: a kind such as `mni152`, a folder of images, or a table.

    Settings, such as the seed of a split, are those of `known` where it is of the same kind, so
    that the same images are split alike; then come `changes`, by paths below `data`. Raises
    ConfigError, and DataError where it can be read as two kinds.
    """
    _require_of_data(changes or {})
    tree = recognised_tree(place, changes)
    if tree["kind"] == known.kind:
        tree = {**known.tree(), **tree}
    source: DataSource = decode(DataSource, tree, "DATA")
    return changed(source, changes or {})


def changed(source: DataSource, changes: Mapping[str, Any]) -> DataSource:
    """The source with `changes`, by paths below `data`. Raises ConfigError."""
    _require_of_data(changes)
    return decode_config({"data": source.tree()}, dict(changes)).data if changes else source


def _require_of_data(changes: Mapping[str, Any]) -> None:
    for path in changes:
        if not path.startswith("data."):
            raise ConfigError(f"--set {path}: only the data's settings, data.*, can be set here.")


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


def open_for_model(
    source: DataSource, spec: ImageSpec, aside: Console, changes: Mapping[str, Any] | None = None
) -> Dataset:
    """The data set as a finished model takes it: at its working size, and scaled as its own was.

    `changes` may set another size. Raises ConfigError for numbers without a range, where the
    model's data had 8 or 16 bits.
    """
    if "data.resize" not in (changes or {}):  # it sees images at the size that it was trained at
        source = source.model_copy(update={"resize": spec.resize})
    dataset = open_aloud(source, aside, to_train=False)
    ranges = spec.input.ranges if spec.input else None
    own = dataset.form.ranges if dataset.form else None
    if ranges == own or not isinstance(source, FileSource):
        return dataset
    if ranges is None:
        if source.value_range is not None:
            return dataset
        raise ConfigError(
            f"the data holds numbers of other types than the images of {spec.image_max} levels "
            "that the model was trained on. Say which values are black and white: "
            f"--set 'data.value_range=[0, {spec.image_max}]'."
        )
    aside.print("note: the values are scaled as in the model's training.", style="yellow")
    assert spec.input is not None
    update = {"value_range": ranges, "no_data": spec.input.fills or None}
    scaled = source.model_copy(update=update)
    return open_aloud(scaled, aside, to_train=False)
