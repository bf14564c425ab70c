"""What a final training came to: what was trained, what was tried, and what is proposed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.text import count
from unetexp.metrics.bootstrap import PairedComparison

TRIAL, FINAL, ENSEMBLE, SOUP = "trial", "final training", "ensemble", "soup"
_MERGED = {ENSEMBLE: "probabilities", SOUP: "weights"}


@dataclass(frozen=True)
class Contender:
    """A model that can be promoted."""

    kind: str  # trial, final training, ensemble, soup
    title: str
    run_id: str  # that it is registered from
    folder: Path
    score: float  # on validation; NaN where validation was trained on
    epoch: int  # the one whose weights it has; of several models the last
    seed: int | None = None  # of a single model


@dataclass(frozen=True)
class FinalRun:
    """A training to the end with one seed."""

    seed: int
    score: float  # of its best epoch; NaN where it failed
    epoch: int
    run_id: str = ""

    @property
    def failed(self) -> bool:
        return math.isnan(self.score)


@dataclass(frozen=True)
class Attempt:
    """An ensemble or a soup that was tried, against the best model until then."""

    kind: str  # ensemble, soup
    models: int
    against: str  # the title of that model
    score: float = math.nan
    comparison: PairedComparison | None = None
    refused: str = ""  # why it is not kept, where it is not the comparison

    @property
    def pays(self) -> bool:
        """Whether the interval of the difference is above zero."""
        return self.comparison is not None and self.comparison.difference.low > 0

    @property
    def kept(self) -> bool:
        return self.pays and not self.refused

    def describe(self, metric: str) -> str:
        """What was tried and what came of it, in a sentence."""
        what = f"{self.kind} of {self.models} seeds (averaged {_MERGED[self.kind]})"
        if self.comparison is None:
            return f"{what}: not tried, {self.refused}"
        difference = self.comparison.difference
        found = f"{metric} {self.score:.4f}, {difference.value:+.4f} against {self.against}"
        if math.isnan(difference.low):
            return f"{what}: tried and not kept, {found} on a single image"
        found += f" (95 % interval {difference.low:+.4f} to {difference.high:+.4f})"
        if self.kept:
            return f"{what}: kept, {found}"
        why = f", and {self.refused}" if self.refused and self.pays else ""
        return f"{what}: tried and not kept, {found}{why}"


@dataclass(frozen=True)
class WithVal:
    """A further training on train and val together."""

    sweep: str
    epochs: int
    seeds: tuple[int, ...]

    def describe(self, chosen: str) -> str:
        """What it is, and what it does not have, in two sentences."""
        seeds = ", ".join(map(str, self.seeds))
        return (
            f"Then trained on train and val together (sweep {self.sweep}, "
            f"seed{'s' * (len(self.seeds) > 1)} {seeds}) for {count(self.epochs, 'epoch')}, the "
            f"number that validation chose for {chosen}; the last epoch is kept. With val trained "
            "on, nothing was left to pick or to compare it by before the test split."
        )


@dataclass(frozen=True)
class FinalTraining:
    """The final training of a trial's settings."""

    sweep: str
    metric: str  # of the scores
    trial: str  # the id of the trial whose settings these are
    trial_score: float
    trial_epochs: int
    epochs: int
    runs: tuple[FinalRun, ...]
    attempts: tuple[Attempt, ...]
    picked: Contender  # by validation; `chosen` without --with-val
    chosen: Contender
    others: tuple[Contender, ...]  # what it is shown beside, without the sweep's own trials
    with_val: WithVal | None = None

    @property
    def is_new(self) -> bool:
        """Whether it is the final training that is proposed, and not the sweep's own model."""
        return self.chosen.kind != TRIAL

    def describe(self) -> list[str]:
        """The whole result, in lines: what was trained, tried, picked."""
        return [self.heading(), *self.lines(), self.verdict()]

    def heading(self) -> str:
        seeds = count(len(self.runs), "new seed")
        return (
            f"Final training of trial {self.trial} (sweep {self.sweep}): {self.epochs} epochs "
            f"instead of {self.trial_epochs}, {seeds}, best {self.metric} on validation:"
        )

    def lines(self) -> Iterator[str]:
        """One for each model that was trained or tried."""
        yield f"trial {self.trial} in the sweep: {self.trial_score:.4f}"
        for run in self.runs:
            found = "failed" if run.failed else f"{run.score:.4f} in epoch {run.epoch}"
            yield f"seed {run.seed}: {found}"
        for attempt in self.attempts:
            yield attempt.describe(self.metric)

    def verdict(self) -> str:
        """What validation picked, and what was made of it."""
        text = f"Picked by validation: {self.picked.title} ({self.metric} {self.picked.score:.4f})."
        if self.picked.kind == TRIAL:
            text += " The final training is no better on validation."
        if self.with_val is not None:
            text += f" {self.with_val.describe(self.picked.title)}"
        return text


def best(contenders: Sequence[Contender]) -> Contender:
    """The highest score; of equal ones the first."""
    return max(contenders, key=lambda each: each.score)
