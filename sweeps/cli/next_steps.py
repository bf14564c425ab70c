"""What to type next, after each command: commands that work as they are printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sweeps.driver.sweep import Sweep, resume_command
from sweeps.leaderboard.ranking import Leaderboard
from sweeps.promotion.registry import CHAMPION, MODEL
from sweeps.state.stop_reason import StopReason
from sweeps.text import installed, make, script
from sweeps.tracking.mlflow_ui import trials_url, ui_command
from sweeps.tracking.store import TrackingStore
from unetexp.tracking.moved import relocate_command
from unetexp.tracking.server import public_uri
from unetexp.tracking.uri import tracking_option
from unetexp.training.experiment import BEST

if TYPE_CHECKING:
    from mlflow.entities import Run

Commands = list[tuple[str, str]]  # (what for, command or address), in the order they are wanted in


def after_sweep(sweep: Sweep) -> Commands:
    """What a sweep that has ended is good for."""
    plan, progress, uri = sweep.plan, sweep.progress, sweep.plan.options.tracking_uri
    store = tracking_option(uri)
    commands = []
    if progress.count(StopReason.INTERRUPTED) or not sweep.complete:
        commands.append(("resume it", resume_command(plan)))
    commands += [
        ("see the trials", ui_command(uri)),
        ("  table", sweep.tracker.trials_url()),
        ("  charts", sweep.tracker.trials_url(charts=True)),
        ("compare them", script("compare", plan.name, *store)),
    ]
    if sweep.report is not None:
        commands.append(("read the report", str(sweep.report)))
    if progress.ranking:
        best = plan.storage.local_copy(progress.ranking[0].id) / BEST
        commands.append(("try the best", _predict(str(best))))
    if progress.count(StopReason.COMPLETED):
        commands.append(("promote it", script("promote", plan.name, *store)))
    return commands


def after_comparison(
    store: TrackingStore, runs: Sequence[Run], uri: str | None, board: Leaderboard
) -> Commands:
    """Where to see the compared sweeps, the parent runs `runs`, and how to promote the best."""
    if store.moved:
        return [("correct the addresses", relocate_command(store.uri))]
    commands = [("see the trials", ui_command(uri))]
    for run in runs:
        name = f" {run.data.tags['sweep.name']}" if len(runs) > 1 else ""
        commands += [
            (f"  table{name}", trials_url(store, run.info.run_id)),
            (f"  charts{name}", trials_url(store, run.info.run_id, charts=True)),
        ]
    if board.rows["full_budget"].any():
        best = board.rows.loc[board.rows["full_budget"], "sweep"].iloc[0]
        commands.append(("promote the best", script("promote", best, *tracking_option(uri))))
    return commands


def after_promotion(uri: str | None, *, back: bool, exported: bool = False) -> Commands:
    """How to use the champion; `back`: whether there is another one to go back to.

    `exported`: whether it was registered with exports.
    """
    store = tracking_option(uri)
    variables = {"TRACKING_URI": public_uri(uri)} if uri else {}
    commands = [
        ("predict", _predict(f"models:/{MODEL}@{CHAMPION}", *store)),
        ("serve", make("serve", **variables)),
    ]
    if not exported:
        commands.append(("export to int8", _export(f"models:/{MODEL}@{CHAMPION}", *store)))
    if back:
        commands.append(("roll back", script("promote", "--rollback", *store)))
    return commands


def no_sweeps_yet(uri: str | None) -> str:
    """The message for a store without sweeps."""
    return f"there are no sweeps yet. Run one: {script('run', *tracking_option(uri))}"


def print_commands(commands: Commands, say: Callable[[str], None]) -> None:
    """Print them below an empty line, the commands in a column."""
    width = max(len(what) for what, _ in commands)
    say("")
    for what, command in commands:
        say(f"{what:<{width}}  {command}")


def _export(model: str, *options: str) -> str:
    form = ("--to", "openvino", "--precision", "int8", "--out", f"{MODEL}-int8.xml")
    return installed("unetexp", "export", model, *form, *options)


def _predict(model: str, *options: str) -> str:
    return installed("unetexp", "predict", model, "IMAGES", "--out", "predictions", *options)
