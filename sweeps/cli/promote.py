"""`python sweeps/promote.py`: the options, and what each way of calling it does."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer
from rich.console import Console

from sweeps.cli.next_steps import Commands, after_promotion, no_sweeps_yet, print_commands
from sweeps.cli.options import Gpus
from sweeps.driver.plan import SweepOptions
from sweeps.execution.placement import require_gpus_here
from sweeps.promotion.console import (
    show_champion,
    show_confirmation,
    show_decision,
    show_rollback,
)
from sweeps.promotion.lock import promotion_lock
from sweeps.promotion.plan import Request, plan_promotion
from sweeps.promotion.promote import confirm_choice
from sweeps.promotion.promote import promote as promote_model
from sweeps.promotion.registry import rollback as swap
from sweeps.tracking.store import TrackingStore, open_existing
from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.options import TrackingUri
from unetexp.component import Tree
from unetexp.compute.device import limit_threads, pick_device
from unetexp.errors import ConfigError, UserError
from unetexp.training.config import parse_assignments

_SEEDS = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
def promote(
    sweep: Annotated[
        str | None, typer.Argument(help="A sweep's name.", show_default="the newest finished one")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN_ID", help="Promote this trial instead of the best one."),
    ] = None,
    confirm: Annotated[
        int, typer.Option(min=0, metavar="K", help="Train the best K again with new seeds.")
    ] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, metavar="S", help="New seeds for --confirm.", show_default=str(_SEEDS)),
    ] = None,
    split: Annotated[
        Literal["test", "val"],
        typer.Option(
            help="Split that the models are judged on; val only where there is no test split."
        ),
    ] = "test",
    candidates: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Number of trials that are evaluated, the best first."
        ),
    ] = 3,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="MS",
            help="Take the best trial that needs at most this long for one image on this machine.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="promotion.GATE=VALUE",
            help="A gate in place of the recipe's. Repeatable.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote although a gate failed; the model card says so."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Evaluate only, and change nothing; this still uses the test split."
        ),
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Swap the champion and the previous one.")
    ] = False,
    gpus: Gpus = None,
    tracking_uri: TrackingUri = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_URI",
            help="Where the trials of --confirm keep their files.",
            show_default="beside the sweep's",
        ),
    ] = None,
) -> None:
    """Make the best trial of a sweep the champion, if it passes the gates.

    The best trials and the current champion are evaluated on the test split, which the search has
    never seen, and the best trial is compared with the runner-up and with the champion.

    Exit codes: 0 done, 1 failed, 2 a mistake, 3 a gate is red and nothing was changed, 130
    interrupted, 143 stopped by SIGTERM or SIGHUP.
    """
    with exit_codes():
        in_a_log = not sys.stdout.isatty()  # there, a line is a line; a terminal gets whole words
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=in_a_log)
        if rollback and (sweep or run or confirm or force or dry_run or max_latency_ms):
            raise ConfigError("--rollback swaps champion and previous and takes no other choice.")
        if sweep is not None and run is not None:
            raise ConfigError(f"give the sweep {sweep!r} or --run {run}, not both.")
        if seeds is not None and not confirm:
            raise ConfigError(
                f"--seeds {seeds}: this needs --confirm K, the number of trials that get them."
            )
        changes = parse_assignments(set_ or [])
        _require_one_limit(max_latency_ms, run, changes)
        require_gpus_here(gpus)
        store = open_existing(tracking_uri)
        if store is None:
            raise UserError(no_sweeps_yet(tracking_uri))
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
            max_latency_ms=max_latency_ms,
            force=force,
            changes=changes,
            options=SweepOptions(gpus=gpus, tracking_uri=tracking_uri, storage=storage),
        )
        _promote(store, request, dry_run, console)


def _require_one_limit(limit_ms: float | None, run: str | None, changes: Tree) -> None:
    """ConfigError where --max-latency-ms meets another choice or another limit."""
    if limit_ms is None:
        return
    if run is not None:
        raise ConfigError(
            f"--max-latency-ms chooses the trial, and --run {run} has chosen one. For the gate "
            f"alone: --set promotion.max_latency_ms={limit_ms:g}"
        )
    if "promotion.max_latency_ms" in changes:
        raise ConfigError(
            "--max-latency-ms sets promotion.max_latency_ms as well: leave out that --set."
        )


def _promote(store: TrackingStore, request: Request, dry_run: bool, console: Console) -> None:
    limit_threads()
    device = pick_device("cpu" if request.options.gpus == 0 else "auto")
    with console.status("looking at the sweep and its data"):
        plan = plan_promotion(store, request, device)
    confirmation = confirm_choice(plan, console) if request.confirm else None
    if confirmation:
        show_confirmation(console, confirmation)
    promoted = promote_model(
        plan, confirmation, console, lambda decision: show_decision(console, decision), dry=dry_run
    )
    if promoted is None:
        console.print("Nothing was changed (--dry-run).")
        return
    show_champion(console, promoted.decision, promoted.version, promoted.before)
    commands = after_promotion(request.options.tracking_uri, back=promoted.before is not None)
    _print_next(console, commands)


def _roll_back(store: TrackingStore, tracking_uri: str | None, console: Console) -> None:
    with promotion_lock(store, lambda text: console.print(text)):
        now, before = swap(store)
    show_rollback(console, now, before)
    _print_next(console, after_promotion(tracking_uri, back=True))


def _print_next(console: Console, commands: Commands) -> None:
    print_commands(commands, lambda line: console.print(line, soft_wrap=True))
