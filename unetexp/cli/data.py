"""`unetexp data`: what is in a data set, before anything is trained on it."""

from __future__ import annotations

import typer

from unetexp.cli.command_line import Command, Group
from unetexp.cli.data_show import show

app = typer.Typer(cls=Group, no_args_is_help=True, help="Look at a data set before training.")

app.command(cls=Command)(show)
