"""A planned sweep from the terminal: data, preflight, live view, exit code."""

from __future__ import annotations

import sys
from dataclasses import replace

from rich.console import Console

from sweeps.cli.next_steps import after_sweep
from sweeps.driver.model_costs import describe_models
from sweeps.driver.plan import SweepPlan, describe
from sweeps.driver.prepare import PreparedSweep, prepare
from sweeps.driver.resume import ended_trials
from sweeps.driver.sweep import Sweep
from sweeps.driver.warm_starting import NOTHING, warm_start
from sweeps.preflight.preflight import preflight, require_store_and_disk_space
from sweeps.state.manifest import SweepManifest
from sweeps.state.stop_reason import StopReason
from unetexp.cli.exit_codes import DONE, FAILED
from unetexp.cli.progress import shown_progress
from unetexp.compute.measured import is_free
from unetexp.data import open_dataset
from unetexp.data.layouts.paragraph import paragraph


def run_sweep(plan: SweepPlan, manifest: SweepManifest | None) -> int:
    """Run the planned sweep, a new one or that of the manifest, to its end; returns the exit code.

    Raises KeyboardInterrupt after that end if a signal brought it about.
    """
    console = console_for_lines()
    with shown_progress(console, "checking the data") as on_progress:
        prepared = prepare(plan, on_progress, started=manifest is not None)
    console.print(f"data: {prepared.understood}")
    for warning in prepared.warnings:
        console.print(f"note: {warning}", style="yellow")
    if plan.options.preflight:
        with console.status("preflight: every choice once, in miniature"):
            prepared = _checked(prepared, manifest, console)
        plan = prepared.plan
    if is_free(plan.recipe.base) and not plan.measured:
        console.print(
            "note: not measured: precision and memory format follow the rule for the device"
        )
    warm = NOTHING if manifest else warm_start(plan, prepared.data)
    for sentence in warm.sentences:
        console.print(f"warm start: {sentence}")
    sweep = Sweep.resume(prepared, manifest) if manifest else Sweep.start(prepared, warm)
    view = sweep.view()
    with view:
        reason = sweep.run(view)
    outcome = sweep.estimate_outcome
    view.finish(reason, after_sweep(sweep), outcome.describe() if outcome else "")
    if sweep.interrupted:
        raise KeyboardInterrupt
    if sweep.controller.halt_reason is not None:
        return FAILED
    _confirm(sweep, console)
    return DONE if sweep.progress.count(StopReason.COMPLETED) else FAILED


def _confirm(sweep: Sweep, console: Console) -> None:
    """Train the best trials again with other seeds, where the budget plans it."""
    plan = sweep.plan
    if not plan.recipe.budget.confirm or not sweep.complete:
        return
    # Promotion takes a while to import, and most sweeps end without it.
    from sweeps.promotion.confirmation.confirm import confirm_best
    from sweeps.promotion.console import show_confirmation

    console.print(f"confirming the best trials of {plan.name} with other seeds (budget.confirm)")
    confirmation = confirm_best(sweep.tracker.store, plan.name, plan.options, console)
    if confirmation is None:
        console.print("nothing to confirm: no trial had the full budget of epochs")
    else:
        show_confirmation(console, confirmation)


def dry_run(plan: SweepPlan, manifest: SweepManifest | None) -> None:
    """Read the data and print what was understood of it, then the whole plan; start nothing.

    Raises DataError for data that cannot be read.
    """
    console = console_for_lines()
    source = plan.recipe.base.data
    if not getattr(source, "is_here", lambda: True)():
        console.print("data: not read, as it would have to be downloaded first.")
    else:
        with shown_progress(console, "checking the data") as on_progress:
            data = open_dataset(source, on_progress=on_progress, to_train=manifest is None)
        console.print(f"data: {paragraph(source, data)}")
        for note in data.notes:
            console.print(f"note: {note}", style="yellow")
        for sentence in warm_start(plan, data).sentences if manifest is None else ():
            console.print(f"warm start: {sentence}")
    lines = ["", describe(plan), "", *describe_models(plan.recipe)]
    Console(highlight=False, soft_wrap=True).print("\n".join(lines), markup=False)


def console_for_lines() -> Console:
    """A console that leaves words whole on a terminal, and lines in a log."""
    in_a_log = not sys.stdout.isatty()  # there, a line is a line; a terminal gets whole words
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=in_a_log)


def _checked(
    prepared: PreparedSweep, manifest: SweepManifest | None, console: Console
) -> PreparedSweep:
    """The sweep after its preflight; one that was started before has only its places checked."""
    if manifest is not None:
        require_store_and_disk_space(prepared.plan, prepared.data, ended_trials(prepared.plan))
        return prepared
    plan = preflight(prepared.plan, prepared.data, lambda text: console.print(f"preflight: {text}"))
    return replace(prepared, plan=plan)
