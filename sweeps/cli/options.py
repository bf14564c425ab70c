"""Options that several scripts share, and those of a sweep's budget."""

from __future__ import annotations

from typing import Annotated

import typer

_RECIPES = "the recipe's"

Gpus = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="GPUs to use; 0: the CPU.", show_default="all available"),
]
GpusPerTrial = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help="Share of a GPU per trial (0.5: two trials on one GPU); 2 or more: that many GPUs "
        "train each trial together; auto: as many trials on each GPU as train the most images a "
        "second together, up to 4 that its memory holds.",
        show_default=_RECIPES,
    ),
]
CpusPerTrial = Annotated[
    float | None,
    typer.Option(
        metavar="F",
        help="CPU cores per trial.",
        show_default="the recipe's; else all cores, shared evenly",
    ),
]
MaxConcurrent = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Most trials at the same time.",
        show_default="the recipe's; else as many as fit, on the CPU 2",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of configurations to try.", show_default=_RECIPES),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Epochs of a trial that is not stopped early.", show_default=_RECIPES
    ),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Wall time such as 8h or 1h30m, after which running trials are stopped and the sweep "
        "ends normally.",
        show_default=_RECIPES,
    ),
]
