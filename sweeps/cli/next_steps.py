"""What to type after a sweep: commands that work as they are printed."""

from __future__ import annotations

from sweeps.driver.sweep import Sweep, resume_command
from sweeps.state.progress import COMPLETED, INTERRUPTED
from sweeps.text import program
from sweeps.tracking.mlflow_ui import ui_command
from unetexp.tracking.server import public_uri
from unetexp.training.experiment import BEST


def next_commands(sweep: Sweep) -> list[tuple[str, str]]:
    """(what for, command or address), in the order in which they are wanted."""
    plan, progress, uri = sweep.plan, sweep.progress, sweep.plan.options.tracking_uri
    where = f" --tracking-uri {public_uri(uri)}" if uri else ""
    python = program("python")
    commands = []
    if progress.count(INTERRUPTED) or not sweep.complete:
        commands.append(("go on", resume_command(plan)))
    commands += [
        ("see the trials", ui_command(uri)),
        ("  table", sweep.tracker.trials_url()),
        ("  charts", sweep.tracker.trials_url(charts=True)),
        ("compare them", f"{python} sweeps/compare.py {plan.name}{where}"),
    ]
    if sweep.report is not None:
        commands.append(("read the report", str(sweep.report)))
    if progress.ranking:
        best = plan.storage.local_copy(progress.ranking[0].id) / BEST
        predict = f"{program('unetexp')} predict {best} IMAGES --out predictions"
        commands.append(("try the best", predict))
    if progress.count(COMPLETED):
        commands.append(("promote it", f"{python} sweeps/promote.py {plan.name}{where}"))
    return commands
