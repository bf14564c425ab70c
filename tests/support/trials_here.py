"""Real trials of a real sweep one after the other in this process, without Ray and its workers.

For what is not about Ray: a worker takes several seconds to import what a trial needs.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext, suppress

import pytest
from ray import tune

from sweeps.driver import sweep
from sweeps.execution.trial import run_trial
from sweeps.search.trial_report import REPORT


@contextmanager
def trials_here():
    """Sweeps of this process run their trials in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "ray_up", lambda *_: nullcontext())
        patch.setattr(sweep, "run_trials", run_trials_here)
        yield


def run_trials_here(controller, context, placement, shared=None):
    """In place of `tune_run.run_trials`."""
    while (trial := controller.propose()) is not None:

        def report(metrics, trial=trial):
            if not controller.trial_reported(trial.id, metrics[REPORT]):
                sys.exit(0)  # as Ray stops a trial

        controller.trial_started(trial.id)
        with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
            patch.setattr(tune, "report", report)
            told = {"values": dict(trial.values), "config": trial.config.tree()}
            run_trial({"trial": trial.id, **told}, context)
        assert trial.ended
