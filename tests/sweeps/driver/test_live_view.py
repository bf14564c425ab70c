"""What the terminal shows, from events alone."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from sweeps.driver.live_view import LiveView
from sweeps.state.progress import SweepProgress
from sweeps.state.stop_reason import StopReason
from sweeps.text import settings

URL = "http://127.0.0.1:5000/#/experiments/1/runs?searchFilter=x"
VALUES = {"encoder.freeze": "all", "optimizer.lr": 0.00123456}


def started(trial, at):
    return [
        {"event": "trial", "at": at, "trial": trial, "values": VALUES},
        {"event": "start", "at": at, "trial": trial},
    ]


def epoch(trial, at, number, score):
    metrics = {"val/miou": score}
    return {"event": "epoch", "at": at, "trial": trial, "epoch": number, "metrics": metrics}


def end(trial, at, reason, error=""):
    return {"event": "end", "at": at, "trial": trial, "reason": reason, "error": error}


# Two workers, four trials of four epochs of 10 s: one completes, one is stopped, one fails.
RECORD = [
    *started("0000", 0),
    *started("0001", 0),
    epoch("0000", 10, 1, 0.25),
    epoch("0001", 10, 1, 0.5),
    end("0001", 10, "asha"),
    *started("0002", 10),
    epoch("0000", 20, 2, 0.4),
    end("0002", 20, "oom", "Traceback\n  [line]\nOutOfMemoryError: no [room] left"),
    epoch("0000", 30, 3, 0.35),
    epoch("0000", 40, 4, 0.3),
    end("0000", 40, "completed"),
    *started("0003", 40),
]


def progress_of(events, **options):
    progress = SweepProgress(trials=4, epochs=4, at_once=2, **options)
    for event in events:
        progress.apply(event)
    return progress


def view_of(events, *, terminal=False, width=100, height=24, now=50.0, **options):
    console = Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        markup=False,
        highlight=False,
        color_system=None,
    )
    times = iter([0.0])
    view = LiveView(
        "quick",
        SweepProgress(trials=4, epochs=4, at_once=2),
        device="CPU",
        devices_per_trial=2,
        trials_url=URL,
        console=console,
        clock=lambda: next(times, now),
        **options,
    )
    for event in events:
        show(view, event)
    return view


def show(view, event):
    """Add the event up and show it, as the controller does."""
    view.progress.apply(event)
    view(event)


def printed(view):
    return view.console.file.getvalue()


def screen(view):
    """The live view as it stands, as text."""
    with view.console.capture() as capture:
        view.console.print(view)
    return capture.get()


class TestTally:
    def test_counts(self):
        progress = progress_of(RECORD)
        assert (progress.count("completed"), progress.count("asha"), progress.failed) == (1, 1, 1)
        assert [trial.id for trial in progress.running] == ["0003"]
        assert progress.waiting == 0

    def test_the_leader_is_the_best_seen_and_the_ranking_puts_full_budgets_first(self):
        progress = progress_of(RECORD)
        assert progress.leader.id == "0001"
        assert [trial.id for trial in progress.ranking] == ["0000", "0001"]
        assert progress.by_id["0000"].best_epoch == 2

    def test_time_spent_and_saved(self):
        progress = progress_of(RECORD)
        assert progress.spent_s() == 40 + 10 + 10
        assert progress.spent_s(now=45) == 40 + 10 + 10 + 5
        assert progress.saved_s() == 3 * 10

    def test_a_trial_taken_up_again_counts_the_time_it_ran(self):
        again = {"event": "start", "at": 100, "trial": "0000"}
        events = [*started("0000", 0), epoch("0000", 10, 1, 0.1), again]
        assert progress_of([*events, epoch("0000", 110, 2, 0.1)]).spent_s() == 20

    def test_an_interrupted_trial_that_goes_on_is_running(self):
        events = [*started("0000", 0), end("0000", 5, "interrupted")]
        progress = progress_of([*events, {"event": "start", "at": 9, "trial": "0000"}])
        assert (progress.count("interrupted"), len(progress.running)) == (0, 1)

    def test_time_left(self):
        assert progress_of(started("0000", 0)).left_s(5) is None
        two = [*started("0000", 0), *started("0001", 0)]
        two += [epoch("0000", 10, 1, 0.1), epoch("0001", 10, 1, 0.1)]
        assert progress_of(two).left_s(10) == pytest.approx((3 + 3 + 4 + 4) * 10 / 2)
        assert progress_of(two, deadline=25.0).left_s(10) == 15
        assert progress_of(two, deadline=5.0).left_s(10) == 0

    def test_a_score_that_is_not_finite_never_leads(self):
        events = [*started("0000", 0), epoch("0000", 1, 1, math.nan), epoch("0000", 2, 2, math.inf)]
        assert progress_of(events).leader is None


class TestLines:
    def test_one_line_an_event(self):
        view = view_of([])
        with view:
            for event in RECORD:
                show(view, event)
        lines = printed(view).splitlines()
        assert len(lines) == 2 + len([event for event in RECORD if event["event"] != "trial"])
        assert URL in lines[1]
        assert lines[2].endswith("trial 0000 started: encoder.freeze=all, optimizer.lr=0.00123")
        text = "\n".join(lines)
        assert "trial 0000 epoch 2/4: val/miou 0.4000 (best 0.4000 in epoch 2)" in text
        assert "trial 0001 stopped early after epoch 1" in text
        assert "failed (out of memory)" in text
        assert "OutOfMemoryError: no [room] left" in text
        assert "\x1b" not in text

    def test_what_is_said_is_said_as_it_is(self):
        for terminal in (False, True):
            view = view_of([{"event": "said", "text": "away [bold]x[/bold] :smile:"}])
            assert "away [bold]x[/bold] :smile:" in printed(view), terminal

    def test_long_lines_are_not_broken(self):
        view = view_of(started("0000", 0), width=30)
        assert len(printed(view).splitlines()) == 1

    def test_simulated_is_said(self):
        with view_of([], simulated=True) as view:
            assert "simulated" in printed(view)
        assert "simulated" in screen(view)


class TestLive:
    def test_it_shows_all_there_is_to_know(self):
        text = screen(view_of(RECORD[:7], terminal=True))
        for part in (
            "quick",
            "00:50 elapsed",
            "left",
            "0.5000 val/miou, trial 0001, epoch 1",
            "1/4",
            "0.2500",
            "0 completed, 1 stopped early, 0 failed, 2 waiting",
            "CPU hours: 0.03 spent, 0.02 saved",
            "http://127.0.0.1:5000",
        ):
            assert part in text, part

    @pytest.mark.parametrize("width", [40, 60, 80, 200])
    def test_it_fits_the_screen(self, width):
        events = [event for n in range(64) for event in started(f"{n:04d}", 0)]
        view = view_of(events, terminal=True, width=width, height=20)
        lines = screen(view).splitlines()
        assert len(lines) <= 20
        assert max(map(len, lines)) <= width
        assert "0000" in screen(view)
        assert "0/4" in screen(view)
        assert "more running" in screen(view)

    def test_before_the_first_epoch(self):
        assert "no epoch has ended" in screen(view_of(started("0000", 0), terminal=True))
        assert "No trial is running" in screen(view_of([], terminal=True))

    def test_failures_are_said_above_the_view_and_the_rest_is_not(self):
        text = printed(view_of(RECORD, terminal=True))
        assert "failed (out of memory)" in text
        assert "started" not in text


class TestFinish:
    def test_best_trials_and_next_commands(self):
        view = view_of(RECORD)
        view.console.file.truncate(0)
        commands = [("see the trials", "make ui"), ("compare", "python x.py quick")]
        view.finish(StopReason.COMPLETED, commands)
        text = printed(view)
        assert "Sweep quick is done. 1 completed, 1 stopped early, 1 failed." in text
        assert text.index("0.4000") < text.index("0.5000")
        assert "1/4*" in text
        assert "* had fewer epochs" in text
        assert "see the trials  make ui" in text
        assert "compare         python x.py quick" in text

    def test_the_estimate_stands_beside_what_the_sweep_took(self):
        view = view_of(RECORD)
        view.finish(StopReason.COMPLETED, [], "estimated 3 min, took 3 min 20 s")
        assert "Wall time: estimated 3 min, took 3 min 20 s.\n" in printed(view)

    def test_no_scores(self):
        view = view_of([])
        view.finish(StopReason.INTERRUPTED, [])
        assert "ended: interrupted" in printed(view)
        assert "No trial has a score." in printed(view)


def test_settings_are_short():
    assert settings(VALUES) == "encoder.freeze=all, optimizer.lr=0.00123"
    assert settings({"a": None, "b": True, "c": 3}) == "a=None, b=True, c=3"
