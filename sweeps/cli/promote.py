"""`python sweeps/promote.py`: the options, and what each way of calling it does."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer
from rich.console import Console

from sweeps.driver.plan import SweepOptions
from sweeps.driver.signals import second_signal_kills
from sweeps.execution.placement import require_gpus_here
from sweeps.promotion.console import (
    show_case,
    show_confirmation,
    show_crowned,
    show_next,
    show_rollback,
)
from sweeps.promotion.lock import promotion_lock
from sweeps.promotion.promote import Promotion, Request
from sweeps.promotion.registry import rollback as swap
from sweeps.text import program
from sweeps.tracking.store import TrackingStore, open_existing
from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import exit_codes
from unetexp.errors import ConfigError, UserError
from unetexp.training.config import parse_assignments
from unetexp.training.device import limit_threads, pick_device

_SEEDS = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
def promote(
    sweep: Annotated[
        str | None, typer.Argument(help="A sweep's name; without it, the newest finished one.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Promote this trial, not the best one.")
    ] = None,
    confirm: Annotated[
        int, typer.Option(min=0, metavar="K", help="Train the best K again with new seeds.")
    ] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, metavar="S", help=f"New seeds for --confirm; {_SEEDS} if not given."),
    ] = None,
    split: Annotated[
        Literal["test", "val"],
        typer.Option(help="What is judged by; val only where there is no test split."),
    ] = "test",
    candidates: Annotated[
        int, typer.Option(min=1, metavar="N", help="Trials that are evaluated, the best first.")
    ] = 3,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="promotion.GATE=VALUE in place of the recipe's; repeatable."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote against the gates; the card says so.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge only; it still uses the test split.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Swap the champion and the previous one.")
    ] = False,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs to use; 0 is the CPU.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="Where MLflow keeps runs.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Folder or URI for --confirm; without it, beside the sweep's."),
    ] = None,
) -> None:
    """Make the best trial of a sweep the champion, if it passes the gates.

    It is evaluated on the test split, which the search has never seen, and compared with the
    sweep's runner-up and with the present champion.

    Exit codes: 0 done, 1 failed, 2 a mistake, 3 a gate is red and nothing was changed, 130
    interrupted.
    """
    with exit_codes(), second_signal_kills():
        in_a_log = not sys.stdout.isatty()  # there, a line is a line; a terminal gets whole words
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=in_a_log)
        if rollback and (sweep or run or confirm or force or dry_run):
            raise ConfigError("--rollback swaps champion and previous and takes no other choice.")
        if sweep is not None and run is not None:
            raise ConfigError(f"give the sweep {sweep!r} or --run {run}, not both.")
        if seeds is not None and not confirm:
            raise ConfigError(f"--seeds {seeds}: say with --confirm K how many trials get them.")
        changes = parse_assignments(set_ or [])
        require_gpus_here(gpus)
        store = open_existing(tracking_uri)
        if store is None:
            raise UserError(f"there are no sweeps yet. Run one: {program('python')} sweeps/run.py")
        if rollback:
            _roll_back(store, tracking_uri, console)
            return
        request = Request(
            sweep=sweep,
            run_id=run,
            confirm=confirm,
            seeds=seeds or _SEEDS,
            split=split,
            candidates=candidates,
            force=force,
            changes=changes,
            options=SweepOptions(gpus=gpus, tracking_uri=tracking_uri, storage=storage),
        )
        _promote(store, request, dry_run, console)


def _promote(store: TrackingStore, request: Request, dry_run: bool, console: Console) -> None:
    limit_threads()
    device = pick_device("cpu" if request.options.gpus == 0 else "auto")
    with console.status("looking at the sweep and its data"):
        promotion = Promotion(store, request, device)
    if request.confirm:
        show_confirmation(console, promotion.confirm(console))
    promoted = promotion.settle(console, lambda decision: show_case(console, decision), dry=dry_run)
    if promoted is None:
        console.print("No gate is in the way. Nothing was changed: --dry-run.")
        return
    show_crowned(console, promoted.decision, promoted.version, promoted.before)
    show_next(console, request.options.tracking_uri, back=promoted.before is not None)


def _roll_back(store: TrackingStore, tracking_uri: str | None, console: Console) -> None:
    with promotion_lock(store, lambda text: console.print(text)):
        now, before = swap(store)
    show_rollback(console, now, before)
    show_next(console, tracking_uri, back=True)
