"""`unetexp data show`: samples and their augmented views on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unetexp.cli.evaluate import SplitName
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import open_aloud, source_of
from unetexp.compute.device import limit_threads
from unetexp.data import Mni152
from unetexp.errors import ConfigError
from unetexp.training.augmenting.presets import Preset
from unetexp.training.config import decode_config, parse_assignments
from unetexp.training.sample_page.page import sample_page, size_notes

_MOST = 100


def show(
    source: Annotated[
        str, typer.Argument(help="A folder of images and masks, or a kind such as mni152.")
    ],
    augment: Annotated[
        Preset, typer.Option(help="Augmentation preset: none, light, medium, strong or medical.")
    ] = "light",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page.", show_default="augmentation-PRESET.html"),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=_MOST, help="Images.")] = 6,
    views: Annotated[int, typer.Option(min=1, max=_MOST, help="Augmented views of each.")] = 5,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change data.* or augment.*. Repeatable."),
    ] = None,
) -> None:
    """Write an HTML page of training images with their masks and augmented views."""
    with exit_codes():
        changes = parse_assignments(set_ or [])
        of_data = {path: value for path, value in changes.items() if path.startswith("data.")}
        others = {path: value for path, value in changes.items() if path not in of_data}
        for path in others:
            if not path.startswith("augment.") and path != "seed":
                raise ConfigError(
                    f"--set {path}: here data.*, augment.* and seed can be set: the page shows "
                    "nothing else."
                )
        config = decode_config({"augment": {"preset": augment}}, others)
        limit_threads()
        console = Console(highlight=False, soft_wrap=True)
        data = open_aloud(source_of(source, Mni152(), of_data), console, to_train=False)
        for problem in data.problems:
            console.print(f"a sweep refuses this set: {problem}", style="red", markup=False)
        for note in size_notes(data, config, SplitName.train):
            console.print(f"note: {note}", style="yellow", markup=False)
        place = out or Path(f"augmentation-{config.augment.preset}.html")
        page = sample_page(data, config, source, SplitName.train, count, views)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"--out {place}: {error.strerror or error}. Choose a file that can be written."
            ) from None
        console.print(f"page: {place}", markup=False)
