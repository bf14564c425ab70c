"""A sweep without a recipe: one is planned from its data and kept as a file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sweeps.config.checks import PLANNED_RECIPES
from sweeps.driver.plan import SWEEPS, SweepOptions
from unetexp.component import decode
from unetexp.data import DataSource
from unetexp.data.collection import Progress
from unetexp.data.sources.recognised import recognised_tree
from unetexp.planning.facts import look_at
from unetexp.planning.plan import Plan, plan
from unetexp.training.config import decode_config

FOLDER = SWEEPS / PLANNED_RECIPES


@contextmanager
def with_planned_recipe(
    options: SweepOptions, *, keep: bool, on_progress: Progress | None, said: Callable[[str], None]
) -> Iterator[SweepOptions]:
    """The options with a recipe that is planned from `options.data`, where they name none.

    The recipe is a file in `FOLDER`, or with `keep` false one that is removed afterwards. `said`
    gets what the user should know. Raises DataError.
    """
    if options.recipe is not None or options.data is None:
        yield options
        return
    source = _source(options.data, options.changes)
    made = plan(source, look_at(source, on_progress), _device(options))
    with _file(made, keep) as path:
        if keep:
            said(f"recipe planned from the data, with the reason for each line: {path}")
        else:
            said(f"recipe planned from the data:\n{made.text}")
        yield replace(options, recipe=str(path), data=None)  # the recipe names the data


def _source(place: str, changes: Mapping[str, Any]) -> DataSource:
    own = {path: value for path, value in changes.items() if path.startswith("data.")}
    source: DataSource = decode(DataSource, recognised_tree(place, own), "DATA")
    return decode_config({"data": source.tree()}, own).data


def _device(options: SweepOptions) -> str:
    """What trials will run on."""
    if options.gpus == 0 or options.simulate_gpus is not None:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _file(made: Plan, keep: bool) -> Iterator[Path]:
    name = f"{made.name}-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
    if keep:
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / name
        path.write_text(made.text, encoding="utf-8")
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        path.write_text(made.text, encoding="utf-8")
        yield path
