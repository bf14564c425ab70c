"""What to type after a sweep: commands that work as they are printed."""

from __future__ import annotations

from sweeps.links import ui_command
from sweeps.shell import program
from sweeps.sweep import Sweep, resume_command
from sweeps.tally import COMPLETED, INTERRUPTED
from unetexp.experiment import BEST
from unetexp.server import public_uri


def next_commands(sweep: Sweep) -> list[tuple[str, str]]:
    """(what for, command or address), in the order in which they are wanted."""
    plan, tally, uri = sweep.plan, sweep.tally, sweep.plan.options.tracking_uri
    where = f" --tracking-uri {public_uri(uri)}" if uri else ""
    python = program("python")
    commands = []
    if tally.count(INTERRUPTED):
        commands.append(("go on", resume_command(plan)))
    commands += [
        ("see the trials", ui_command(uri)),
        ("  table", sweep.tracker.trials_url()),
        ("  charts", sweep.tracker.trials_url(charts=True)),
        ("compare them", f"{python} sweeps/compare.py {plan.name}{where}"),
    ]
    if sweep.report is not None:
        commands.append(("read the report", str(sweep.report)))
    if tally.ranking:
        best = plan.storage.local_copy(tally.ranking[0].id) / BEST
        predict = f"{program('unetexp')} predict {best} IMAGES --out predictions"
        commands.append(("try the best", predict))
    if tally.count(COMPLETED):
        commands.append(("promote it", f"{python} sweeps/promote.py {plan.name}{where}"))
    return commands
