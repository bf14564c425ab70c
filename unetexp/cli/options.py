"""Options that several commands share, each with one name and one help text."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from unetexp.data.cache.room import LIMIT_VARIABLE

TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Where MLflow keeps runs: a server, a database or a SQLite file.",
        show_default="MLFLOW_TRACKING_URI, or else a local database",
    ),
]
CacheGb = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Most gigabytes of decoded images in the cache folder: sets that were not used for "
        "longest are removed, and a set without room is decoded from its files each time; 0: "
        "all are.",
        show_default=f"{LIMIT_VARIABLE}, or else what the disk has free",
    ),
]


def limit_cache(gigabytes: float | None) -> None:
    """Bound the cache of this process, and of those that it starts."""
    if gigabytes is not None:
        os.environ[LIMIT_VARIABLE] = f"{gigabytes:g}"


SetData = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="A setting of the data, data.*. Repeatable."),
]
Flavor = Annotated[
    str | None,
    typer.Option(
        "--flavour",
        "--flavor",
        metavar="NAME",
        help="What a promoted model is used with: pytorch, or an export that it has, such as "
        "openvino-int8.",
        show_default="what it was promoted with",
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")]
