"""What a sweep will cost, from what a few steps cost: hours, and trials that share a GPU."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

from sweeps.config.budget import parse_duration
from sweeps.config.recipe import Recipe
from sweeps.execution.placement import Placement
from sweeps.preflight.overheads import NO_OVERHEADS, Overheads
from sweeps.preflight.step_cost import StepCost
from sweeps.search.asha import AshaRungs, milestones
from unetexp.data import Dataset
from unetexp.data.folded import rounds

_PLAYED = 200  # trials of a schedule that is played through; more of them follow suit
_PLAYS = 20  # of small schedules, whose ends differ much
_MOST_ON_A_GPU = 4
_FORWARD = 1 / 3  # of a training step: backward takes twice as much
_MARGIN = 1.15  # memory that is in pieces, and choices that take more than the base


@dataclass(frozen=True)
class Estimate:
    """Seconds of wall time and of devices, at most and as expected with early stopping."""

    epoch_s: float  # of training and validation
    most_wall_s: float
    most_device_s: float
    wall_s: float
    device_s: float
    around_s: float = 0.0  # of the wall time, before the first trial and after the last

    def expected_s(self, recipe: Recipe) -> float:
        """Wall time until the sweep's end, which a time budget may bring on."""
        expected = self.wall_s if recipe.asha.enabled else self.most_wall_s
        if recipe.budget.time is None:
            return expected
        return min(expected, parse_duration(recipe.budget.time) + self.around_s)


def estimate_sweep(
    recipe: Recipe,
    placement: Placement,
    data: Dataset,
    step_cost: StepCost,
    overheads: Overheads = NO_OVERHEADS,
    pace: float = 1.0,
) -> Estimate:
    """The cost of all trials.

    At most: every trial runs all its epochs and is as slow as the measured configuration. Expected:
    the schedule is played through with trials of random quality that keep their order from epoch
    to epoch; an epoch takes `pace` times what the measured one does, in the mean.
    """
    config = recipe.base
    devices = max(1, int(placement.gpus_per_trial))
    # A measurement that had to halve the micro-batch takes more of them for one batch.
    micro_batches = math.ceil(config.batch_size / (step_cost.micro_batch * devices))
    recomputed = config.batch_norm_images / (step_cost.micro_batch * devices)
    epoch_s = sum(  # a model after the other, where the data is in folds
        (config.steps_per_epoch(len(each["train"])) * micro_batches + _FORWARD * recomputed)
        * step_cost.step_s
        + len(each["val"]) * step_cost.val_s / devices
        for each in rounds(data)
    )
    share = placement.gpus_per_trial or placement.cpus_per_trial
    trials, slots = recipe.budget.trials, placement.max_concurrent
    turns = math.ceil(trials / slots)
    wall_epochs, epochs = expected_epochs(recipe, slots)
    whole_s, usual_s = (factor * epoch_s + overheads.epoch_s for factor in (1.0, pace))
    around_s = overheads.start_s(placement) + overheads.end_s
    return Estimate(
        epoch_s,
        around_s + turns * (overheads.trial_s + config.epochs * whole_s),
        trials * (overheads.trial_s + config.epochs * whole_s) * share,
        around_s + turns * overheads.trial_s + wall_epochs * usual_s,
        (trials * overheads.trial_s + epochs * usual_s) * share,
        around_s,
    )


def expected_epochs(recipe: Recipe, slots: int) -> tuple[float, float]:
    """Epochs from the first trial's start to the last one's end, and epochs of all trials."""
    trials = recipe.budget.trials
    played = min(trials, max(_PLAYED, 4 * slots))
    plays = [_play(recipe, played, slots, seed) for seed in range(_PLAYS if played < 50 else 1)]
    wall = sum(wall for wall, _ in plays) / len(plays)
    total = sum(total for _, total in plays) / len(plays)
    return wall * trials / played, total * trials / played


def _play(recipe: Recipe, trials: int, slots: int, seed: int) -> tuple[float, float]:
    """The schedule with pretend trials, from milestone to milestone."""
    epochs, factor = recipe.base.epochs, recipe.asha.reduction_factor
    rungs = AshaRungs(recipe.grace_epochs, epochs, factor)
    stops = milestones(recipe.grace_epochs, epochs, factor) if recipe.asha.enabled else []
    stops = [*stops, epochs]
    draw = random.Random(seed)
    groups = recipe.brackets()
    quality = [draw.random() for _ in range(trials)]
    bracket = [draw.choice(groups) for _ in range(trials)]
    waiting = list(range(trials))[::-1]
    running: list[tuple[int, int, int]] = []  # when, which trial, at which of its stops
    now = total = 0
    while waiting or running:
        while waiting and len(running) < slots:
            heapq.heappush(running, (now + stops[0], waiting.pop(), 0))
        now, trial, at = heapq.heappop(running)
        epoch = stops[at]
        goes_on = epoch < epochs and rungs.admits(str(trial), epoch, quality[trial], bracket[trial])
        if goes_on:
            heapq.heappush(running, (now + stops[at + 1] - epoch, trial, at + 1))
        else:
            total += epoch
    return now, total


def describe_estimate(
    estimate: Estimate,
    recipe: Recipe,
    placement: Placement,
    step_cost: StepCost,
    overheads: Overheads = NO_OVERHEADS,
) -> list[str]:
    """The estimate in sentences."""
    device = "GPU" if placement.gpus else "CPU core"
    measured = "extrapolated from smaller sizes" if step_cost.extrapolated else "measured"
    lines = [
        f"{measured}: {step_cost.step_s:.3g} s a training step of {step_cost.micro_batch} images, "
        f"{step_cost.val_s:.2g} s an image of validation, "
        f"{step_cost.peak_bytes / 2**30:.1f} GiB of "
        f"{'GPU memory' if step_cost.device_bytes else 'memory'}; "
        f"{duration(estimate.epoch_s)} per epoch",
        f"overhead: {duration(estimate.around_s)} for the sweep to start and to end, "
        f"{duration(overheads.trial_s)} a trial and {duration(overheads.epoch_s)} an epoch to "
        "build and to write",
    ]
    most = (
        f"{duration(estimate.most_wall_s)} and "
        f"{estimate.most_device_s / 3600:.2g} {device} hours at most"
    )
    if recipe.asha.enabled:
        lines.append(
            f"the sweep takes about {duration(estimate.wall_s)} and "
            f"{estimate.device_s / 3600:.2g} {device} hours with early stopping (its schedule "
            f"played through with trials of random quality), {most} (no trial stopped)"
        )
    else:
        lines.append(f"the sweep takes {most}")
    if confirming := recipe.budget.confirming:
        turns = math.ceil(confirming / placement.max_concurrent)
        added = turns * (overheads.trial_s + recipe.base.epochs * estimate.epoch_s)
        lines.append(f"confirming the best with other seeds adds about {duration(added)}")
    limit = recipe.budget.time
    if limit is not None and parse_duration(limit) < estimate.wall_s:
        lines.append(f"the time budget of {limit} ends it before that")
    return lines


def trials_per_gpu(step_cost: StepCost) -> int:
    """How many trials like the measured one a GPU's memory holds: 1 to 4."""
    assert step_cost.device_bytes is not None
    return max(
        1, min(_MOST_ON_A_GPU, int(step_cost.device_bytes / (_MARGIN * step_cost.peak_bytes)))
    )


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
