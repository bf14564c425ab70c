"""What the terminal shows of a sweep: a live view on a TTY, elsewhere one line per event.

Knows nothing of Ray or MLflow: it receives the ledger's events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.config.goals import Goals
from sweeps.state.ledger import now_s
from sweeps.state.progress import Event, SweepProgress, TrialProgress, why_converged
from sweeps.state.stop_reason import StopReason
from sweeps.text import settings

_ROWS_BESIDE_TRIALS = 9  # other lines of the live view, and the prompt
_WIDTH_BESIDE_SETTINGS = 45
_BEST_TRIALS = 10


class LiveView:
    """Call it with every event, inside a `with` block; then `finish`.

    Hours are hours of a `device` (`GPU` or `CPU`); a trial uses `devices_per_trial` of them.
    Events may come from several threads.
    """

    def __init__(
        self,
        name: str,
        progress: SweepProgress,
        *,
        device: str,
        devices_per_trial: float,
        trials_url: str,
        simulated: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = now_s,
    ) -> None:
        self.name, self.progress = name, progress
        self.device, self.devices_per_trial = device, devices_per_trial
        self.trials_url, self.simulated = trials_url, simulated
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self._clock = clock
        self._started = clock()
        self._live = Live(
            self, console=self.console, refresh_per_second=2, transient=True, redirect_stderr=True
        )

    def __enter__(self) -> LiveView:
        mark = " (simulated GPUs)" if self.simulated else ""
        budget = f"{self.progress.trials} trials of {self.progress.epochs} epochs"
        self._line(f"Sweep {self.name}{mark}: {budget}")
        self._line(f"Trials, best first, in the MLflow UI: {self.trials_url}")
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Handle an event; prints a line if there is no live view, or for a failure or message."""
        with self.progress.lock:
            trial = self.progress.by_id.get(event.get("trial", ""))
            text = event["text"] if trial is None else self._describe(event, trial)
        matters = trial is None or (event["event"] == "end" and trial.failed)
        if text and (matters or not self.console.is_terminal):
            self._line(f"[{_clock_time(self._clock() - self._started)}] {text}")

    def finish(
        self, reason: StopReason, commands: Sequence[tuple[str, str]], wall_time: str = ""
    ) -> None:
        """After the `with` block: print best trials, hours and the next `(purpose, command)`s.

        `wall_time` compares the estimate with what the sweep took.
        """
        self._line("")
        ended = "is done" if reason is StopReason.COMPLETED else f"ended: {reason.label}"
        self._line(f"Sweep {self.name} {ended}. {self._counts()}. {self._hours(None)}.")
        if self.progress.converged is not None:
            self._line(f"Ended early: {why_converged(self.progress.converged)}.")
        if wall_time:
            self._line(f"Wall time: {wall_time}.")
        best = self.progress.ranking[:_BEST_TRIALS]
        if best:
            self.console.print(_best_table(best, self.progress))
        else:
            self._line("No trial has a score.")
        if front := self.progress.front:
            named = ", ".join(trial.id for trial in front)
            self._line(f"Pareto front of {self.progress.goals.describe()}: trials {named}.")
        if any(trial.reason != StopReason.COMPLETED for trial in best):
            self._line("* had fewer epochs than the full budget: ranked after those that had it.")
        self._line("")
        width = max((len(what) for what, _ in commands), default=0)
        for what, command in commands:
            self._line(f"{what:<{width}}  {command}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self.progress.lock:
            now = self._clock()
            yield Group(
                Text(""),
                self._headline(now),
                self._leader(),
                *self._running(console.height - _ROWS_BESIDE_TRIALS, options.max_width),
                _cropped(f"{self._counts()}, {self.progress.waiting} waiting"),
                _cropped(self._hours(now)),
                Text.assemble(
                    "MLflow: ",
                    (_host_of(self.trials_url), f"link {self.trials_url}"),
                    no_wrap=True,
                    overflow="ellipsis",
                ),
            )

    def _headline(self, now: float) -> Text:
        left = self.progress.left_s(now)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(self.name, "bold")
        if self.simulated:
            text.append(" simulated", "bold yellow")
        text.append(f"  {_clock_time(now - self._started)} elapsed, ")
        return text.append("time left unknown" if left is None else f"about {_about(left)} left")

    def _leader(self) -> Text:
        leader = self.progress.leader
        if leader is None:
            return Text("Best so far: no epoch has ended yet", no_wrap=True, overflow="ellipsis")
        return Text.assemble(
            "Best so far: ",
            (f"{leader.best:.4f}", "bold green"),
            f" {self.progress.goals.score}, trial {leader.id}, epoch {leader.best_epoch}: ",
            settings(leader.values),
            no_wrap=True,
            overflow="ellipsis",
        )

    def _running(self, rows: int, width: int) -> list[Table | Text]:
        running = self.progress.running
        if not running:
            return [Text("No trial is running.")]
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
        for heading in ("trial", "epoch", ""):
            table.add_column(heading, no_wrap=True)
        table.add_column(self.progress.goals.label, justify="right", no_wrap=True)
        table.add_column("best", justify="right", no_wrap=True)
        widest = max(10, width - _WIDTH_BESIDE_SETTINGS)
        table.add_column("settings", no_wrap=True, overflow="ellipsis", max_width=widest)
        rows = max(1, rows)
        for trial in running[:rows]:
            table.add_row(
                trial.id,
                f"{trial.epoch}/{self.progress.epochs}",
                ProgressBar(total=self.progress.epochs, completed=trial.epoch, width=10),
                f"{trial.score:.4f}" if trial.epoch else "",
                f"{trial.best:.4f}" if trial.best_epoch else "",
                settings(trial.values),
            )
        hidden = len(running) - rows
        return [table, Text(f"and {hidden} more running", "dim")] if hidden > 0 else [table]

    def _counts(self) -> str:
        progress = self.progress
        parts = [
            f"{progress.count(StopReason.COMPLETED)} completed",
            f"{progress.count(StopReason.ASHA)} stopped early",
            f"{progress.failed} failed",
        ]
        if interrupted := progress.count(StopReason.INTERRUPTED):
            parts.append(f"{interrupted} interrupted")
        return ", ".join(parts)

    def _hours(self, now: float | None) -> str:
        hours = self.devices_per_trial / 3600
        spent, saved = self.progress.spent_s(now) * hours, self.progress.saved_s() * hours
        return f"{self.device} hours: {spent:.2f} spent, {saved:.2f} saved by stopping early"

    def _describe(self, event: Event, trial: TrialProgress) -> str | None:
        best = (
            f"best {trial.best:.4f} in epoch {trial.best_epoch}" if trial.best_epoch else "no score"
        )
        match event["event"]:
            case "start":
                return f"trial {trial.id} started: {settings(trial.values)}"
            case "epoch":
                progress = f"epoch {trial.epoch}/{self.progress.epochs}"
                score = f"{self.progress.goals.score} {trial.score:.4f}"
                return f"trial {trial.id} {progress}: {score} ({best})"
            case "end":
                reason = StopReason(event["reason"]).label
                cause = (event.get("error") or "").strip().rpartition("\n")[2]
                verb = f"failed ({reason})" if trial.failed else reason
                text = f"trial {trial.id} {verb} after epoch {trial.epoch}, {best}"
                return f"{text}: {cause}" if trial.failed and cause else text
        return None

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def _best_table(trials: Sequence[TrialProgress], progress: SweepProgress) -> Table:
    goals: Goals = progress.goals
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    others = [objective.metric for objective in goals.others]
    for heading in ("rank", "trial", goals.score, "in epoch", "epochs", *others):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "trial" else "right")
    table.add_column("settings", overflow="fold")
    for rank, trial in enumerate(trials, start=1):
        partial = "" if trial.reason == StopReason.COMPLETED else "*"
        table.add_row(
            str(rank),
            trial.id,
            f"{trial.best:.4f}",
            str(trial.best_epoch),
            f"{trial.epoch}/{progress.epochs}{partial}",
            *(f"{value:.4g}" for value in trial.point[1:]),
            settings(trial.values),
        )
    return table


def _cropped(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _clock_time(seconds: float) -> str:
    minutes, second = divmod(int(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds / 10)) * 10} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _host_of(url: str) -> str:
    return url.partition("/#")[0]
