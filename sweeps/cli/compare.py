"""`python sweeps/compare.py`: the options, and where the leaderboard goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sweeps.cli.next_recipe import check_place, write_next
from sweeps.cli.next_steps import after_comparison, no_sweeps_yet, print_commands
from sweeps.leaderboard.export import TableFormat, encode, format_of
from sweeps.leaderboard.ranking import Leaderboard, rank_trials
from sweeps.leaderboard.text_table import blocks
from sweeps.leaderboard.trials import select_sweeps, trials_frame
from sweeps.text import count
from sweeps.tracking.own_files import require_own_files
from sweeps.tracking.run_writer import RunWriter
from sweeps.tracking.store import TrackingStore, open_existing
from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.options import TrackingUri
from unetexp.errors import ConfigError, UserError

if TYPE_CHECKING:
    from mlflow.entities import Run

_ROWS_IN_A_TABLE = 20
_ITS_PLACE = "-"  # what --report holds where no path was given


class _PathMayBeMissing(Command):
    """`--report` alone or with a path, which ends in .html; anything else after it is a sweep."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        following = [*args, ""][1:]
        return super().parse_args(
            ctx,
            [
                f"--report={_ITS_PLACE}" if arg == "--report" and not _is_path(after) else arg
                for arg, after in zip(args, following, strict=True)
            ],
        )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=_PathMayBeMissing, context_settings={"help_option_names": ["-h", "--help"]})
def compare(
    sweeps: Annotated[
        list[str] | None,
        typer.Argument(metavar="SWEEP", help="Names of sweeps.", show_default="the newest"),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Order by this column, the better or smaller value first; -COLUMN reverses it.",
            show_default="full budget first, then the best score",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Only trials that meet it: \"loss.kind == 'focal' and optimizer.lr < 1e-3\".",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of trials shown.",
            show_default=f"{_ROWS_IN_A_TABLE} in a table",
        ),
    ] = None,
    format_: Annotated[
        TableFormat | None,
        typer.Option(
            "--format",
            help="Form of what is printed or written.",
            show_default="table, or by the ending of --out",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead of printing.")
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="[PATH]",
            help="Write the report of each sweep again: in its folder and in MLflow, or as the "
            ".html file PATH.",
        ),
    ] = None,
    next_: Annotated[
        Path | None,
        typer.Option(
            "--next",
            metavar="RECIPE",
            help="Write a recipe for the next sweep to this .yaml file: the best settings first, "
            "ranges wider where the best trials lie at an end, clearly worse choices left out.",
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Compare the trials of one or several sweeps.

    A leaderboard by the best score, val/miou or the first objective: parameters that
    differ, IoU of each class in the best epoch, epochs used, stop reason, parameters of
    the model, latency, and cost in seconds on a device. With several objectives the
    column pareto marks the trials that no other one of their sweep beats in all of them.

    Exit codes: 0 done, 2 a mistake, 130 interrupted.
    """
    with exit_codes():
        chosen = format_of(format_, out)
        if chosen is TableFormat.PARQUET and out is None and sys.stdout.isatty():
            raise ConfigError("--format parquet is not text: give a file with --out.")
        say = _speaker(chosen, out)
        warn = None if report is not None else lambda text: say(f"warning: {text}")
        store = open_existing(tracking_uri, warn)
        if store is None:
            raise UserError(no_sweeps_yet(tracking_uri))
        runs = select_sweeps(store, sweeps or [])
        names = [run.data.tags["sweep.name"] for run in runs]
        if report not in (None, _ITS_PLACE) and len(runs) > 1:
            raise ConfigError(
                f"--report {report}: it is one sweep's report and {len(runs)} sweeps are named "
                f"({', '.join(names)}). Name one, or leave PATH out."
            )
        if next_ is not None:
            check_place(next_, names)
        usual = _ROWS_IN_A_TABLE if chosen is TableFormat.TABLE else None
        frame = trials_frame(store, names)
        board = rank_trials(frame, sort=sort, where=where, top=top or usual)
        if chosen is TableFormat.TABLE and out is None:
            say(f"{', '.join(names)}: {count(len(frame), 'trial')}")
            _print_table(board, say)
        else:
            _write(encode(board, chosen), out, say)
        for note in _notes(board, runs, where, len(frame)):
            say(note)
        if top is None and len(board.rows) < board.of:
            say(f"{len(board.rows)} of {board.of} trials: --top {board.of} shows all.")
        if report is not None:
            _report(store, runs, report, say)
        if next_ is not None:
            write_next(store, runs[0], next_, tracking_uri, say)
        if chosen is TableFormat.TABLE:
            print_commands(after_comparison(store, runs, tracking_uri, board), say)


def _is_path(text: str) -> bool:
    return text.endswith(".html") and not text.startswith("-")


def _speaker(chosen: TableFormat, out: Path | None) -> Callable[[str], None]:
    """Prints a line; on standard error where standard output carries data."""
    data = out is None and chosen is not TableFormat.TABLE
    console = Console(stderr=data, highlight=False, markup=False, emoji=False, soft_wrap=True)
    return lambda line: console.print(line)


def _print_table(board: Leaderboard, say: Callable[[str], None]) -> None:
    if board.rows.empty:
        return
    console = Console(highlight=False, markup=False, emoji=False)
    tables, notes = blocks(board, console.width)
    for table in tables:
        console.print()
        console.print(table)
    for note in notes:
        say(note)


def _write(data: bytes, out: Path | None, say: Callable[[str], None]) -> None:
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise UserError(f"--out {out}: it cannot be written ({error}).") from None
    say(f"wrote {out}")


def _notes(board: Leaderboard, runs: Sequence[Run], where: str | None, there_are: int) -> list[str]:
    """What has to be said about the trials shown."""
    notes = list(board.notes)
    names = ", ".join(run.data.tags["sweep.name"] for run in runs)
    if there_are == 0:
        notes.append(f"There are no trials in {names} yet.")
    elif board.rows.empty:
        notes.append(f"None of the {there_are} trials in {names} meets --where {where!r}.")
    if len({run.data.tags.get("data.fingerprint") for run in runs}) > 1:
        notes.append("The sweeps were run on different data: their scores do not compare.")
    return notes


def _report(
    store: TrackingStore, runs: Sequence[Run], path: str, say: Callable[[str], None]
) -> None:
    """Write each sweep's report to `path` or, for `_ITS_PLACE`, to its own places."""
    from sweeps.driver.plan import control_folder
    from sweeps.driver.sweep import REPORT
    from sweeps.report import write_report
    from sweeps.state.storage import Storage

    for run in runs:
        name = run.data.tags["sweep.name"]
        require_own_files(store.uri, run, storage=path == _ITS_PLACE)
        place = control_folder(Storage(run.data.tags["sweep.storage"]), name) / REPORT
        target = place if path == _ITS_PLACE else Path(path).absolute()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_report(store, name, target)
        except OSError as error:
            raise UserError(
                f"the report of {name} cannot be written to {target}: {error}. Name another place: "
                "--report PATH.html"
            ) from None
        if path == _ITS_PLACE:
            RunWriter(store.client, run.info.run_id).log_content(REPORT, target)
        say(f"report of {name}: {target}")
