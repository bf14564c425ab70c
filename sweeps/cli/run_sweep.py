"""A planned sweep from the terminal: data, preflight, live view, exit code."""

from __future__ import annotations

import sys
from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from sweeps.cli.next_steps import after_sweep
from sweeps.driver.plan import SweepPlan
from sweeps.driver.prepare import PreparedSweep, prepare
from sweeps.driver.resume import ended_trials
from sweeps.driver.sweep import Sweep
from sweeps.preflight.preflight import preflight, require_store_and_disk_space
from sweeps.state.manifest import SweepManifest
from sweeps.state.stop_reason import StopReason
from unetexp.cli.exit_codes import DONE, FAILED
from unetexp.compute.measured import is_free


def run_sweep(plan: SweepPlan, manifest: SweepManifest | None) -> int:
    """Run the planned sweep, a new one or that of the manifest, to its end; returns the exit code.

    Raises KeyboardInterrupt after that end if a signal brought it about.
    """
    in_a_log = not sys.stdout.isatty()  # there, a line is a line; a terminal gets whole words
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=in_a_log)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("checking the data")
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
    if is_free(plan.recipe.base) and not plan.measured:
        console.print(
            "note: not measured: precision and memory format follow the rule for the device"
        )
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
