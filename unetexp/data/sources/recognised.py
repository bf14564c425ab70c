"""The source that a place on the command line stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unetexp.component import Tree, components_in
from unetexp.data.layouts.recognition import recognised
from unetexp.data.sources import DataSource


def recognised_tree(place: str, changes: Mapping[str, Any] | None = None) -> Tree:
    """The fields of the source that `place` is: a kind such as mni152, a folder, a table.

    A `data.kind` among the `changes` is that kind. Raises DataError.
    """
    wanted = (changes or {}).get("data.kind")
    return recognised(place, components_in(DataSource), wanted)
