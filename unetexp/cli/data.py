"""`unetexp data`: what to know about a data set before a model is trained on it."""

from __future__ import annotations

import typer

from unetexp.cli.command_line import Command, Group
from unetexp.cli.data_check import check
from unetexp.cli.data_plan import plan_recipe
from unetexp.cli.data_show import show

app = typer.Typer(
    cls=Group,
    name="data",
    no_args_is_help=True,
    help="Look at a data set before it costs anything.",
)


@app.callback()
def data() -> None:
    """Look at a data set before it costs anything."""


app.command(cls=Command)(check)
app.command(cls=Command)(show)
app.command("plan", cls=Command)(plan_recipe)
