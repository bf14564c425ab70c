"""Choosing among a sweep's best by further seeds: what is chosen wrongly, and what it costs.

A replayed sweep ends with its best complete trials. The plain choice is the one that leads. The
others train the best few again: all with all seeds, or as a race (`budget.race`). The table has no
images, so of a race's paired test over them the width of the interval is given, as a share of
trainings' usual differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.searching.arms import ARMS, OURS
from benchmarks.searching.landscape import CLOSE, Landscape
from benchmarks.searching.replay import MemoryLedger, replay
from sweeps.promotion.confirmation.racing import Compare, Race, raced
from sweeps.promotion.final_training.validation import Validated
from sweeps.state.stop_reason import StopReason
from unetexp.metrics.bootstrap import Interval, PairedComparison

PLAIN = "the leader"
_NO_IMAGES = np.zeros((0, 1, 1), dtype=np.int64)  # of confusion matrices
HALF_WIDTHS = (0.002, 0.005, 0.01, 0.02)  # of 95 % intervals over the images, in mIoU


@dataclass(frozen=True)
class Chosen:
    """What a way of choosing came to."""

    way: str
    lost: float  # mIoU without noise behind the best of the few
    trainings: int  # with further seeds

    @property
    def wrong(self) -> bool:
        return self.lost > CLOSE


def _by_score(half_width: float, one: Validated, other: Validated) -> PairedComparison:
    """A comparison by the scores alone: the interval over images has a fixed width."""
    gap = one.score - other.score
    interval = Interval(gap, gap - half_width, gap + half_width)
    return PairedComparison(interval, float(gap > 0))


def choices(
    landscape: Landscape, trainings: float, seed: int, few: int, seeds: int, devices: int = 4
) -> list[Chosen]:
    """Each way's choice after a sweep of `trainings`, among its `few` best complete trials."""
    unit = landscape.training_s
    controller = ARMS[OURS].controller(landscape.recipe, seed, MemoryLedger(), devices, unit)
    replay(controller, landscape, devices, trainings * unit, seed)
    done = [t for t in controller.progress.ranking if t.reason is StopReason.COMPLETED][:few]
    values = {trial.id: controller.trials[trial.id].values for trial in done}
    if not values:
        return []
    true = {trial: float(landscape.scores[landscape.row(v)].max()) for trial, v in values.items()}
    best = max(true.values())

    def score(trial: str, number: int) -> float:
        rng = np.random.default_rng((seed, int(trial), number + 1))
        return float(landscape.run(values[trial], rng).max())

    found = [Chosen(PLAIN, best - true[next(iter(values))], 0)]
    again = {trial: [score(trial, n) for n in range(seeds)] for trial in values}
    mean = max(again, key=lambda trial: float(np.mean(again[trial])))
    found.append(Chosen(f"{few} with {seeds} seeds", best - true[mean], few * seeds))
    for width in HALF_WIDTHS:
        trial, cost = _raced(list(values), score, seeds, partial(_by_score, width))
        way = f"{few} in a race, images ± {100 * width:g} points"
        found.append(Chosen(way, best - true[trial], cost))
    return found


def _raced(
    trials: list[str], score: Callable[[str, int], float], seeds: int, compare: Compare
) -> tuple[str, int]:
    """The winner of a race, by its mean among those that are left, and the trainings."""
    race, scores = Race(compare), {trial: list[float]() for trial in trials}

    def train(left: list[str], number: int) -> None:
        for trial in left:
            scores[trial].append(score(trial, number))
            race.trained(trial, number, Validated(scores[trial][-1], _NO_IMAGES))

    dropped = raced(trials, range(seeds), train, race)
    left = [trial for trial in trials if trial not in dropped]
    winner = max(left, key=lambda trial: float(np.mean(scores[trial])))
    return winner, sum(map(len, scores.values()))


def table(found: list[Chosen]) -> str:
    """A line for each way of choosing."""
    lines = [
        "| choice | wrong: over half a point behind | points behind, mean | trainings, mean |",
        "|---|---|---|---|",
    ]
    for way in dict.fromkeys(each.way for each in found):
        own = [each for each in found if each.way == way]
        wrong = sum(each.wrong for each in own)
        lines.append(
            f"| {way} | {wrong} of {len(own)} | {100 * np.mean([c.lost for c in own]):.2f} | "
            f"{np.mean([c.trainings for c in own]):.1f} |"
        )
    return "\n".join(lines)
