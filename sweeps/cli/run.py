"""`python sweeps/run.py`: the options, and what each way of calling it does."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sweeps.cli import maintenance
from sweeps.cli.flags import dotted_changes, gpu_share, named_by_flag
from sweeps.cli.options import (
    CpusPerTrial,
    Epochs,
    Gpus,
    GpusPerTrial,
    MaxConcurrent,
    TimeBudget,
    Trials,
)
from sweeps.cli.run_sweep import console_for_lines, run_sweep
from sweeps.cli.run_sweep import dry_run as dry_run_of
from sweeps.driver.plan import DEFAULT_RECIPE, SweepOptions, SweepPlan, plan_sweep
from sweeps.driver.planned import with_planned_recipe
from sweeps.driver.resume import plan_resume
from sweeps.driver.warm_starting import require_sound_warm_start
from sweeps.state.ledger import TRUNCATE
from sweeps.state.manifest import SweepManifest
from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.options import CacheGb, TrackingUri, limit_cache
from unetexp.cli.progress import shown_progress
from unetexp.errors import ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
def run(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe's name, or a YAML file.",
            show_default=f"{DEFAULT_RECIPE}; with --data one planned from it",
        ),
    ] = None,
    recipe_: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="The same as RECIPE; with --resume, its space may differ: earlier trials count "
            "where the new space holds them.",
        ),
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
            metavar="DATA",
            help="In place of the recipe's data: a folder of images and masks in any usual "
            "layout, a CSV or Parquet table that names them, or a kind such as mni152.",
            show_default="the recipe's",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The sweep's name. It must not exist yet.",
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
            help="Fix a setting, which is then not searched; also budget.*, search.*, asha.*, "
            "objective.* and promotion.*. Repeatable.",
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
    cache_gb: CacheGb = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Join the Ray cluster at this address instead of starting Ray here.",
        ),
    ] = None,
    simulate_gpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Simulate the schedule of N GPUs on the CPU; replaces --gpus.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Read the data, print the whole plan and start nothing."),
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Continue this sweep; its budget may change, and by --recipe its space.",
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|auto",
            help="Start a new sweep whose search knows this sweep's trials; auto: those of all "
            "your sweeps on the same data, and first the best settings of those on data alike.",
        ),
    ] = None,
    truncate_ledger_: Annotated[
        bool,
        typer.Option(
            TRUNCATE,
            help="With --resume: continue from the events before the damage in the ledger.",
        ),
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
        limit_cache(cache_gb)
        recipe = _only_one(recipe, recipe_)
        if list_:
            maintenance.list_sweeps(tracking_uri)
        elif delete is not None:
            maintenance.delete(tracking_uri, delete, yes)
        elif relocate:
            maintenance.relocate(tracking_uri, yes)
        else:
            pack = gpus_per_trial == "auto"
            if pack and (skip_preflight or resume):
                raise ConfigError(
                    "--gpus-per-trial auto is determined by the preflight of a new sweep: give a "
                    "number, or leave out --skip-preflight and --resume."
                )
            share = None if pack or gpus_per_trial is None else gpu_share(gpus_per_trial)
            flags = {
                "budget.gpus_per_trial": share,
                "budget.cpus_per_trial": cpus_per_trial,
                "budget.trials": trials,
                "budget.max_concurrent": max_concurrent,
                "budget.time": time_budget,
                "epochs": epochs,
                "seed": seed,
            }
            changes = dotted_changes(set_ or [], flags)
            options = SweepOptions(
                recipe=recipe,
                changes=changes,
                data=data,
                name=name,
                gpus=gpus,
                simulate_gpus=simulate_gpus,
                tracking_uri=tracking_uri,
                storage=storage,
                address=address,
                warm_start=warm_start,
                preflight=not skip_preflight,
                pack=pack,
            )
            if truncate_ledger_:
                maintenance.truncate(resume, options, dry_run)
            require_sound_warm_start(options)
            with named_by_flag(flags):
                plan, manifest = _planned(resume, options, keep=not dry_run)
            if dry_run:
                dry_run_of(plan, manifest)
            else:
                sys.exit(run_sweep(plan, manifest))


def _only_one(argument: str | None, option: str | None) -> str | None:
    """The recipe, which may be given in two ways but not twice."""
    if argument is not None and option is not None:
        raise ConfigError(f"two recipes are given: {argument} and --recipe {option}. Give one.")
    return option if argument is None else argument


def _planned(
    resume: str | None, options: SweepOptions, *, keep: bool
) -> tuple[SweepPlan, SweepManifest | None]:
    """The sweep that is asked for; a recipe that is planned for it is kept as a file, or not."""
    if resume:
        return plan_resume(resume, options)
    console = console_for_lines()
    with (
        shown_progress(console) as on_progress,
        with_planned_recipe(
            options, keep=keep, on_progress=on_progress, said=console.print
        ) as planned,
    ):
        return plan_sweep(planned), None
