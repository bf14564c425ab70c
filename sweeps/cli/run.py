"""`python sweeps/run.py`: the options, and what each way of calling it does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from sweeps.cli.next_steps import next_commands
from sweeps.driver.plan import DEFAULT_RECIPE, SweepOptions, SweepPlan, describe, plan_sweep
from sweeps.driver.prepare import PreparedSweep, prepare
from sweeps.driver.resume import ended_trials, plan_resume
from sweeps.driver.signals import second_signal_kills
from sweeps.driver.sweep import Sweep
from sweeps.preflight.preflight import preflight, require_store_and_disk_space
from sweeps.state.manifest import SweepManifest
from sweeps.state.progress import COMPLETED
from sweeps.tracking.store import open_existing
from sweeps.tracking.sweep_list import check_deletable, delete_sweep, sweep_rows, sweep_table
from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import DONE, FAILED, INTERRUPTED, exit_codes
from unetexp.errors import ConfigError
from unetexp.training.config import parse_assignments

_FLAGS = {
    "budget.gpus_per_trial": "--gpus-per-trial",
    "budget.cpus_per_trial": "--cpus-per-trial",
    "budget.trials": "--trials",
    "budget.max_concurrent": "--max-concurrent",
    "budget.time": "--time-budget",
}  # the others are called as their paths are

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
def run(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe's name, or a YAML file.", show_default=DEFAULT_RECIPE),
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs to use; 0 is the CPU.")] = None,
    gpus_per_trial: Annotated[
        str | None,
        typer.Option(help="0.5 puts two on one GPU; auto: as many as its memory holds, up to 4."),
    ] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="CPU cores a trial gets.")] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a full trial.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at once, at most.")] = None,
    data: Annotated[str | None, typer.Option(help="A folder of images and masks.")] = None,
    name: Annotated[str | None, typer.Option(help="The sweep's name.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of proposals, weights, order and augmentation.")
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="End in good order after 8h.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="PATH=VALUE of the recipe; repeatable.")
    ] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="Where MLflow keeps runs.")] = None,
    storage: Annotated[str | None, typer.Option(help="Folder or URI for checkpoints.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster.")] = None,
    simulate_gpus: Annotated[
        int | None, typer.Option(min=1, help="Rehearse on N pretend GPUs, on the CPU.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    resume: Annotated[str | None, typer.Option(help="Go on with this sweep.")] = None,
    warm_start: Annotated[
        str | None, typer.Option(help="Start with what this sweep's trials taught.")
    ] = None,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Start without checks and estimate.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the sweeps there are.")] = False,
    delete: Annotated[str | None, typer.Option(help="Remove a sweep for good.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --delete.")] = False,
) -> None:
    """Find the best U-Net for your images: trials through Ray Tune, proposals by Optuna, in MLflow.

    Exit codes: 0 at least one trial completed, 1 none did, 2 a mistake, 130 interrupted.
    """
    with exit_codes():
        if list_:
            _list(tracking_uri)
        elif delete is not None:
            _delete(tracking_uri, delete, yes)
        else:
            pack = gpus_per_trial == "auto"
            if pack and (skip_preflight or resume):
                raise ConfigError(
                    "--gpus-per-trial auto is worked out in the preflight of a new sweep: give a "
                    "number, or leave out --skip-preflight and --resume."
                )
            share = None if pack or gpus_per_trial is None else _share(gpus_per_trial)
            flags = {
                "budget.gpus_per_trial": share,
                "budget.cpus_per_trial": cpus_per_trial,
                "budget.trials": trials,
                "budget.max_concurrent": max_concurrent,
                "budget.time": time_budget,
                "epochs": epochs,
                "seed": seed,
            }
            changes = _changes(set_ or [], flags)
            options = SweepOptions(
                recipe,
                changes,
                data,
                name,
                gpus,
                simulate_gpus,
                tracking_uri,
                storage,
                address,
                warm_start,
                preflight=not skip_preflight,
                pack=pack,
            )
            with _named_by_flag(flags):
                plan, manifest = _planned(resume, options)
            if dry_run:
                Console(highlight=False, soft_wrap=True).print(describe(plan), markup=False)
            else:
                with second_signal_kills():
                    sys.exit(_run(plan, manifest))


def _planned(resume: str | None, options: SweepOptions) -> tuple[SweepPlan, SweepManifest | None]:
    return plan_resume(resume, options) if resume else (plan_sweep(options), None)


def _run(plan: SweepPlan, manifest: SweepManifest | None) -> int:
    """Run the planned sweep, a new one or that of the record, to its end; returns the exit code."""
    in_a_log = not sys.stdout.isatty()  # there, a line is a line; a terminal gets whole words
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=in_a_log)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("looking at the data")
        prepared = prepare(
            plan,
            lambda what, done, total: progress.update(
                task, description=what, completed=done, total=total
            ),
        )
    for notice in prepared.notices:
        console.print(f"note: {notice}", style="yellow")
    if plan.options.preflight:
        with console.status("preflight: every choice once, in miniature"):
            prepared = _checked(prepared, manifest, console)
        plan = prepared.plan
    sweep = Sweep.resume(prepared, manifest) if manifest else Sweep.start(prepared)
    view = sweep.view()
    with view:
        reason = sweep.run(view)
    forecast = sweep.forecast.describe() if sweep.forecast else ""
    view.finish(reason, next_commands(sweep), forecast)
    if reason == "interrupted":
        return INTERRUPTED
    if sweep.controller.halt_reason is not None:
        return FAILED
    return DONE if sweep.progress.count(COMPLETED) else FAILED


def _checked(
    prepared: PreparedSweep, manifest: SweepManifest | None, console: Console
) -> PreparedSweep:
    """The sweep after its preflight; one that was started before has only its places checked."""
    if manifest is not None:
        require_store_and_disk_space(prepared.plan, prepared.data, ended_trials(prepared.plan))
        return prepared
    plan = preflight(prepared.plan, prepared.data, lambda text: console.print(f"preflight: {text}"))
    return replace(prepared, plan=plan)


def _list(tracking_uri: str | None) -> None:
    store = open_existing(tracking_uri)
    rows = sweep_rows(store) if store else []
    console = Console(highlight=False)
    console.print(sweep_table(rows) if rows else "There are no sweeps yet.")


def _delete(tracking_uri: str | None, name: str, yes: bool) -> None:
    store = open_existing(tracking_uri)
    if store is None:
        raise ConfigError(f"--delete {name}: there are no sweeps yet.")
    what = check_deletable(store, name)
    if not yes and not typer.confirm(f"Remove {what}?"):
        raise typer.Exit(DONE)
    delete_sweep(store, name)
    Console(highlight=False, markup=False).print(f"removed {name}")


def _share(text: str) -> float:
    """What `--gpus-per-trial` names: a share of a GPU, or a number of GPUs."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"--gpus-per-trial {text!r}: give a share of a GPU such as 0.5, a whole number of GPUs "
            "such as 2, or auto."
        ) from None


@contextmanager
def _named_by_flag(flags: Mapping[str, Any]) -> Iterator[None]:
    """A setting that was given by its flag is named so in what is wrong with it."""
    try:
        yield
    except ConfigError as error:
        lines = str(error).splitlines()
        for path in (path for path, value in flags.items() if value is not None):
            flag = _FLAGS.get(path) or f"--{path}"
            lines = [
                flag + line.removeprefix(path) if line.startswith(f"{path}:") else line
                for line in lines
            ]
        raise ConfigError("\n".join(lines)) from None


def _changes(assignments: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The `--set` assignments and the flags that were given, as dotted changes."""
    changes = parse_assignments(assignments)
    for path, value in flags.items():
        if value is not None:
            if path in changes:
                raise ConfigError(
                    f"{path} is given twice: {value} by its flag and {changes[path]} by --set. "
                    "Leave one out."
                )
            changes[path] = value
    return changes
