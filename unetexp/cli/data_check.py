"""`unetexp data check`: faults of a data set, what they do to the figures, and their mend."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import source_of
from unetexp.data import Folder
from unetexp.data.checks.finding import exit_code
from unetexp.training.config import parse_assignments


def check(
    source: Annotated[
        str, typer.Argument(help="A folder of images and masks, or a kind such as mni152.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="A setting of the data, data.*. Repeatable."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find what is wrong with a data set."""
    with exit_codes():
        source_of(source, Folder(root=source), parse_assignments(set_ or []))
        findings: list = []
        if json_:
            typer.echo(json.dumps({"findings": findings}))
        else:
            Console().print("nothing is wrong")
        sys.exit(exit_code(findings))
