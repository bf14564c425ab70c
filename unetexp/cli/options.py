"""Options that several commands share, each with one name and one help text."""

from __future__ import annotations

from typing import Annotated

import typer

TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Where MLflow keeps runs: a server, a database or a SQLite file.",
        show_default="MLFLOW_TRACKING_URI, or else a local database",
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")]
