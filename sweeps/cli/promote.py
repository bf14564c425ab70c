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
    show_final,
    show_rollback,
)
from sweeps.promotion.exports.asked import ExportRequest
from sweeps.promotion.final_training.settings import TIMES, FinalRequest
from sweeps.promotion.lock import promotion_lock
from sweeps.promotion.plan import Request, plan_promotion
from sweeps.promotion.promote import confirm_choice
from sweeps.promotion.promote import promote as promote_model
from sweeps.promotion.promote import train_final as train_to_the_end
from sweeps.promotion.registry import rollback as swap
from sweeps.tracking.store import TrackingStore, open_existing
from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.options import TrackingUri
from unetexp.component import Tree
from unetexp.compute.device import limit_threads, pick_device
from unetexp.errors import ConfigError, UserError
from unetexp.export.exporting import MAX_DROP
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
    race: Annotated[
        bool,
        typer.Option(
            "--race", help="With --confirm: no further seeds for trials that are clearly behind."
        ),
    ] = False,
    train_final: Annotated[
        bool,
        typer.Option(
            "--train-final",
            help="Train the best settings again to the end first; promote that model if it is "
            "better on validation. The same command goes on where it was interrupted.",
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Epochs of --train-final.",
            show_default=f"{TIMES} times the trial's",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="S",
            help="New seeds for --confirm or --train-final.",
            show_default=f"{_SEEDS}; 1 for --train-final without --ensemble and --soup",
        ),
    ] = None,
    with_val: Annotated[
        bool,
        typer.Option(
            "--with-val",
            help="After --train-final once more on train and val, for as many epochs as "
            "validation chose.",
        ),
    ] = False,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Average the probabilities of the seeds of --train-final, if that is better on "
            "validation.",
        ),
    ] = False,
    soup: Annotated[
        bool,
        typer.Option(
            "--soup",
            help="Average the weights of the seeds of --train-final, if that is better on "
            "validation.",
        ),
    ] = False,
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
    postprocess: Annotated[
        bool,
        typer.Option(
            "--postprocess",
            help="Choose temperature, thresholds and smallest areas on validation, as `unetexp "
            "tune` does; what does not help stays off.",
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Exports that are registered beside the weights under the same gates, such as "
            "openvino-int8,onnx.",
        ),
    ] = None,
    flavor: Annotated[
        str | None,
        typer.Option(
            "--flavour",
            "--flavor",
            metavar="NAME",
            help="What the registered model is used with: pytorch, or one of --export; the "
            "latency gate judges it.",
            show_default="pytorch",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="POINTS",
            help="Points of mIoU (hundredths) that an export may lose.",
            show_default=f"{MAX_DROP}",
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
            help="Where the trials of --confirm and --train-final keep their files.",
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
        others = (sweep, run, confirm, train_final, export, postprocess, force, dry_run)
        if rollback and any((*others, max_latency_ms)):
            raise ConfigError("--rollback swaps champion and previous and takes no other choice.")
        if sweep is not None and run is not None:
            raise ConfigError(f"give the sweep {sweep!r} or --run {run}, not both.")
        final = _final_request(
            train_final, epochs, seeds, with_val=with_val, ensemble=ensemble, soup=soup
        )
        if final is not None and confirm:
            raise ConfigError(
                "--confirm and --train-final both train again: give one, and then the other."
            )
        if race and confirm < 2:
            raise ConfigError("--race: this needs --confirm K, with two trials or more.")
        if seeds is not None and not confirm and final is None:
            raise ConfigError(
                f"--seeds {seeds}: this needs --confirm K, the number of trials that get them, or "
                "--train-final."
            )
        exports = ExportRequest.of(export, flavor, max_drop)
        exports.require_installed()
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
            race=race,
            final=final,
            split=split,
            candidates=candidates,
            max_latency_ms=max_latency_ms,
            exports=exports,
            postprocess=postprocess,
            force=force,
            changes=changes,
            options=SweepOptions(gpus=gpus, tracking_uri=tracking_uri, storage=storage),
        )
        _promote(store, request, dry_run, console)


def _final_request(
    asked: bool,
    epochs: int | None,
    seeds: int | None,
    *,
    with_val: bool,
    ensemble: bool,
    soup: bool,
) -> FinalRequest | None:
    """What is asked of the final training; ConfigError for its options without it."""
    if not asked:
        flags = {"--with-val": with_val, "--ensemble": ensemble, "--soup": soup}
        given = [flag for flag, value in flags.items() if value]
        given += [] if epochs is None else [f"--epochs {epochs}"]
        if given:
            raise ConfigError(f"{given[0]}: this needs --train-final, which it is about.")
        return None
    usual = _SEEDS if ensemble or soup else 1
    final = FinalRequest(epochs, seeds or usual, with_val, ensemble, soup)
    final.require_sound()
    return final


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
    final = None
    if request.final:
        final = train_to_the_end(plan, request.final, console, dry=dry_run)
    if final:
        show_final(console, final)
    promoted = promote_model(
        plan,
        confirmation,
        console,
        lambda decision: show_decision(console, decision),
        dry=dry_run,
        final=final,
    )
    if promoted is None:
        console.print("Nothing was changed (--dry-run).")
        return
    show_champion(console, promoted.decision, promoted.version, promoted.before)
    commands = after_promotion(
        request.options.tracking_uri,
        back=promoted.before is not None,
        exported=bool(request.exports.names),
    )
    _print_next(console, commands)


def _roll_back(store: TrackingStore, tracking_uri: str | None, console: Console) -> None:
    with promotion_lock(store, lambda text: console.print(text)):
        now, before = swap(store)
    show_rollback(console, now, before)
    _print_next(console, after_promotion(tracking_uri, back=True))


def _print_next(console: Console, commands: Commands) -> None:
    print_commands(commands, lambda line: console.print(line, soft_wrap=True))
