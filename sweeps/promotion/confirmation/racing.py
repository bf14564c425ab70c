"""A race of trials with new seeds: one that is clearly behind gets no further seed.

Clearly behind is a trial whose score is below the leader's with every seed that both have had, and
that a paired bootstrap over the validation images, each counted with all these seeds, puts below it
as well: hardly luck of the split. Of the training it may be, with so few seeds: of two equally good
trials one is behind with two of two seeds in half of all races. That is no loss, because they are
equally good; `benchmarks/search.py confirm` measures what a race loses.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from sweeps.promotion.final_training.validation import Validated
from unetexp.metrics.bootstrap import PairedComparison

FEWEST = 2  # seeds before a trial is dropped


Compare = Callable[[Validated, Validated], PairedComparison]  # by how much the first is better


class Race:
    """The trials of a race with what their trainings reached on the validation images."""

    def __init__(self, compare: Compare) -> None:
        self._compare = compare
        self._found: dict[str, dict[int, Validated]] = {}

    def trained(self, trial: str, seed: int, found: Validated) -> None:
        """Note what a finished training reached."""
        self._found.setdefault(trial, {})[seed] = found

    def behind(self, trials: Iterable[str]) -> dict[str, str]:
        """Which of `trials` are clearly behind the leading one, and why in words."""
        known = [trial for trial in trials if len(self._found.get(trial, ())) >= FEWEST]
        if not known:
            return {}
        leader = max(known, key=self._mean)
        reasons = {trial: self._why(trial, leader) for trial in known if trial != leader}
        return {trial: why for trial, why in reasons.items() if why}

    def _mean(self, trial: str) -> float:
        return statistics.fmean(found.score for found in self._found[trial].values())

    def _why(self, trial: str, leader: str) -> str:
        """Why the trial is clearly behind; empty: it is not."""
        own, best = self._found[trial], self._found[leader]
        shared = sorted(own.keys() & best.keys())
        if len(shared) < FEWEST or any(own[seed].score >= best[seed].score for seed in shared):
            return ""
        together = [_pooled([found[seed] for seed in shared]) for found in (own, best)]
        difference = self._compare(*together).difference
        if not difference.high < 0:  # also of a single image, which has no interval
            return ""
        return (
            f"no further seed, {-difference.value:.4f} behind trial {leader} over the images of "
            f"{len(shared)} seeds (95 % interval {-difference.high:.4f} to {-difference.low:.4f})"
        )


def raced(
    trials: Sequence[str], seeds: Sequence[int], train: Callable[[list[str], int], None], race: Race
) -> dict[str, str]:
    """Train the trials with one seed after the other until one is left; who was dropped, and why.

    `train` trains them with a seed and tells the race.
    """
    left, dropped = list(trials), dict[str, str]()
    for seed in seeds:
        train(left, seed)
        dropped |= race.behind(left)
        left = [trial for trial in left if trial not in dropped]
        if len(left) == 1:
            break
    return dropped


def _pooled(found: Sequence[Validated]) -> Validated:
    """The images with the pixels of several trainings."""
    score = statistics.fmean(each.score for each in found)
    return Validated(score, sum((each.matrices for each in found[1:]), found[0].matrices))
