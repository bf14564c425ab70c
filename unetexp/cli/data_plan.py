"""`unetexp data plan`: a whole recipe from the data, with the reason beside each line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import source_of
from unetexp.cli.options import Device, SetData
from unetexp.cli.progress import shown_progress
from unetexp.compute.device import limit_threads, pick_device
from unetexp.data import Mni152
from unetexp.errors import ConfigError
from unetexp.planning.facts import look_at
from unetexp.planning.plan import describe, plan
from unetexp.training.config import parse_assignments


def plan_recipe(
    source: Annotated[
        str, typer.Argument(help="A folder of images and masks, a manifest, or a source's kind.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Write the recipe there; it must not exist yet.",
            show_default="on the terminal",
        ),
    ] = None,
    set_: SetData = None,
    device: Device = "auto",
) -> None:
    """Write a sweep's recipe for a data set: resolution, crop, batch, epochs, losses and more.

    It is an ordinary recipe with the reason beside each line: read it, change it, run it.
    """
    with exit_codes():
        limit_threads()
        if out is not None and out.exists():
            raise ConfigError(f"--out {out}: there is such a file already. Choose another name.")
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        found = source_of(source, Mni152(), parse_assignments(set_ or []))
        with shown_progress(console) as on_progress:
            facts = look_at(found, on_progress)
        made = plan(found, facts, pick_device(device).type)
        if out is None:
            print(made.text, end="")
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(made.text, encoding="utf-8")
        for line in describe(made.facts):
            console.print(line, markup=False)
        console.print(f"recipe in {out}; start it: python sweeps/run.py {out}", markup=False)
