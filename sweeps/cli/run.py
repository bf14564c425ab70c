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

from sweeps.cli.next_steps import after_sweep
from sweeps.cli.options import (
    CpusPerTrial,
    Epochs,
    Gpus,
    GpusPerTrial,
    MaxConcurrent,
    TimeBudget,
    Trials,
)
from sweeps.driver.ledger_repair import truncate_ledger
from sweeps.driver.plan import DEFAULT_RECIPE, SweepOptions, SweepPlan, describe, plan_sweep
from sweeps.driver.prepare import PreparedSweep, prepare
from sweeps.driver.resume import ended_trials, plan_resume, require_sound_warm_start
from sweeps.driver.sweep import Sweep
from sweeps.preflight.preflight import preflight, require_store_and_disk_space
from sweeps.state.ledger import TRUNCATE
from sweeps.state.manifest import SweepManifest
from sweeps.state.stop_reason import StopReason
from sweeps.text import count
from sweeps.tracking.relocation import plan_relocation
from sweeps.tracking.relocation import relocate as rewrite_addresses
from sweeps.tracking.store import open_existing
from sweeps.tracking.sweep_list import check_deletable, delete_sweep, sweep_rows, sweep_table
from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import DONE, FAILED, exit_codes
from unetexp.cli.options import TrackingUri
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
    gpus: Gpus = None,
    gpus_per_trial: GpusPerTrial = None,
    cpus_per_trial: CpusPerTrial = None,
    trials: Trials = None,
    epochs: Epochs = None,
    max_concurrent: MaxConcurrent = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A folder of images and masks, in place of the recipe's data.",
            show_default="the recipe's",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The sweep's name. A name that is taken is refused.",
            show_default="recipe and local time",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Seed of proposals, weights, image order and augmentation.",
            show_default="the recipe's",
        ),
    ] = None,
    time_budget: TimeBudget = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Fix a setting, which is then not searched; also budget.*, asha.*, objective.* "
            "and promotion.*. Repeatable.",
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_URI",
            help="Where the trials' files go.",
            show_default="sweep_runs in the project's folder",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Join the Ray cluster at this address, not a Ray of its own."
        ),
    ] = None,
    simulate_gpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Rehearse the schedule of N GPUs on the CPU; replaces --gpus.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the whole plan and start nothing.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Continue this sweep; only its budget may change."),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Start a new sweep whose search knows this sweep's trials."
        ),
    ] = None,
    truncate_ledger_: Annotated[
        bool,
        typer.Option(TRUNCATE, help="With --resume: go on from what a damaged record still tells."),
    ] = False,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Start without the checks and the estimate.")
    ] = False,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", help="List all sweeps with their state, trials, best score and disk use."
        ),
    ] = False,
    delete: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Remove a sweep, its runs and its files, after asking."),
    ] = None,
    relocate: Annotated[
        bool,
        typer.Option(
            "--relocate", help="Rewrite the stored addresses after the project was moved or copied."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before --delete and --relocate.")
    ] = False,
) -> None:
    """Find the best U-Net for your images: trials through Ray Tune, proposals by Optuna, in MLflow.

    Exit codes: 0 at least one trial completed, 1 none did, 2 a mistake, 130 interrupted, 143
    stopped by SIGTERM or SIGHUP.
    """
    with exit_codes():
        if list_:
            _list(tracking_uri)
        elif delete is not None:
            _delete(tracking_uri, delete, yes)
        elif relocate:
            _relocate(tracking_uri, yes)
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
            if truncate_ledger_:
                _truncate_ledger(resume, options, dry_run)
            require_sound_warm_start(options)
            with _named_by_flag(flags):
                plan, manifest = _planned(resume, options)
            if dry_run:
                Console(highlight=False, soft_wrap=True).print(describe(plan), markup=False)
            else:
                sys.exit(_run(plan, manifest))


def _planned(resume: str | None, options: SweepOptions) -> tuple[SweepPlan, SweepManifest | None]:
    return plan_resume(resume, options) if resume else (plan_sweep(options), None)


def _run(plan: SweepPlan, manifest: SweepManifest | None) -> int:
    """Run the planned sweep, a new one or that of the record, to its end; returns the exit code.

    Raises KeyboardInterrupt after that end if a signal brought it about.
    """
    in_a_log = not sys.stdout.isatty()  # there, a line is a line; a terminal gets whole words
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=in_a_log)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("looking at the data")
        prepared = prepare(
            plan,
            lambda what, done, total: progress.update(
                task, description=what, completed=done, total=total
            ),
            started=manifest is not None,
        )
    for warning in prepared.warnings:
        console.print(f"note: {warning}", style="yellow")
    if plan.options.preflight:
        with console.status("preflight: every choice once, in miniature"):
            prepared = _checked(prepared, manifest, console)
        plan = prepared.plan
    sweep = Sweep.resume(prepared, manifest) if manifest else Sweep.start(prepared)
    view = sweep.view()
    with view:
        reason = sweep.run(view)
    outcome = sweep.estimate_outcome
    view.finish(reason, after_sweep(sweep), outcome.describe() if outcome else "")
    if sweep.interrupted:
        raise KeyboardInterrupt
    if sweep.controller.halt_reason is not None:
        return FAILED
    return DONE if sweep.progress.count(StopReason.COMPLETED) else FAILED


def _checked(
    prepared: PreparedSweep, manifest: SweepManifest | None, console: Console
) -> PreparedSweep:
    """The sweep after its preflight; one that was started before has only its places checked."""
    if manifest is not None:
        require_store_and_disk_space(prepared.plan, prepared.data, ended_trials(prepared.plan))
        return prepared
    plan = preflight(prepared.plan, prepared.data, lambda text: console.print(f"preflight: {text}"))
    return replace(prepared, plan=plan)


def _truncate_ledger(name: str | None, options: SweepOptions, dry_run: bool) -> None:
    if name is None or dry_run:
        raise ConfigError(f"{TRUNCATE} goes with --resume NAME, and without --dry-run.")
    console = Console(highlight=False, soft_wrap=True)
    for line in truncate_ledger(name, options):
        console.print(line, markup=False)


def _list(tracking_uri: str | None) -> None:
    console = Console(highlight=False)

    def warn(text: str) -> None:
        console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    store = open_existing(tracking_uri, warn)
    rows = sweep_rows(store) if store else []
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


def _relocate(tracking_uri: str | None, yes: bool) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    relocation = plan_relocation(tracking_uri)
    if relocation is None:
        console.print("Every address fits: nothing was moved since it was written.")
        return
    console.print(relocation.describe())
    if not yes and not typer.confirm("Rewrite them? A copy of the database is kept."):
        raise typer.Exit(DONE)
    done = rewrite_addresses(relocation)
    console.print(f"{done.values} addresses and {count(done.files, 'file')} were rewritten")
    console.print(f"the database as it was: {done.copy}")


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
