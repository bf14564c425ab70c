"""The findings of a sweep, in sentences with numbers; only significant differences count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sweeps.config.metric_names import BEST_EPOCH, COST
from sweeps.leaderboard.trials import PARETO
from sweeps.report.advice.dimensions import Advice
from sweeps.report.advice.regret import describe_regret
from sweeps.report.advice.stopping import describe_loss
from sweeps.report.effects import FEWEST, Effect
from sweeps.report.equal_time import at_equal_time
from sweeps.report.searched_settings import text
from sweeps.report.sweep_data import SweepData
from sweeps.state.stop_reason import StopReason, is_failure, label_of
from sweeps.text import count


@dataclass(frozen=True)
class Finding:
    """A sentence: a `fact`, a `clear` difference, an `open` question, or what to change `next`."""

    sentence: str
    kind: str  # fact, clear, open, next


def findings(
    sweep_data: SweepData, effects: Sequence[Effect], advice: Sequence[Advice] = ()
) -> list[Finding]:
    """Facts first, then clear differences, settings without one, and the advice."""
    facts = [Finding(sentence, "fact") for sentence in _facts(sweep_data)]
    clear = sorted((e for e in effects if e.clear), key=lambda e: -abs(e.difference.value))
    decided = {effect.setting for effect in clear}
    undecided = [s.path for s in sweep_data.settings if s.path not in decided]
    return [
        *facts,
        *(Finding(_clear(effect, sweep_data.score), "clear") for effect in clear),
        *(Finding(_open(path, effects), "open") for path in undecided),
        *(Finding(sentence, "next") for sentence in _next(sweep_data, advice)),
    ]


def caveats(sweep_data: SweepData, effects: Sequence[Effect]) -> list[str]:
    """The limits of the comparisons, for the reader."""
    if not effects:
        return []
    tested = sum(effect.enough for effect in effects)
    compared = len(sweep_data.comparable)
    sentences = [
        f"Equal budget means: the best {sweep_data.goals.score} until epoch "
        f"{sweep_data.equal_epoch} of {sweep_data.budget}, "
        f"the last that all completed and stopped trials reached; {compared} of "
        f"{count(len(sweep_data.trials), 'trial')} are compared.",
        f"{count(tested, 'comparison')} had the {FEWEST} trials on each side that are needed. A "
        "difference is reported only if its 95 % interval excludes 0 and a permutation test is "
        "significant at 5 % after Holm's correction for that many comparisons.",
        "The trials are no random sample: the search (TPE) chose later settings by earlier "
        "results, so good settings were tried together and more often. The differences are "
        "associations in this sweep, not causes.",
    ]
    if sweep_data.equal_epoch < sweep_data.budget:
        sentences.append(
            "Early epochs favour settings that learn fast; what is best after "
            f"{count(sweep_data.equal_epoch, 'epoch')} may not be best after {sweep_data.budget}."
        )
    return sentences


def _facts(sweep_data: SweepData) -> list[str]:
    trials = sweep_data.trials
    if trials.empty:
        return ["The sweep has no trials: there is nothing to report."]
    return [
        *_best(sweep_data),
        *_front(sweep_data),
        *_stopping(sweep_data),
        *describe_loss(sweep_data),
        *describe_regret(sweep_data),
        *at_equal_time(sweep_data),
        *_failures(trials),
    ]


def _best(sweep_data: SweepData) -> list[str]:
    score, label = sweep_data.goals.best, sweep_data.score
    full = sweep_data.scored[sweep_data.scored["full_budget"]]
    if full.empty:
        some = sweep_data.scored
        if some.empty:
            return ["No trial has a score, so settings cannot be compared."]
        best = some.iloc[0]
        return [
            f"No trial had the full budget. The best partial score is "
            f"{best[score]:.1%} {label}, trial {best['trial']} "
            f"in epoch {best[BEST_EPOCH]:.0f}, stopped after "
            f"{count(int(best['epochs']), 'epoch')}."
        ]
    best = full.iloc[0]
    used = [f"{s.path} = {text(best[s.path])}" for s in sweep_data.settings if _set(best, s.path)]
    sentences = [
        f"Trial {best['trial']} is the best of {count(len(full), 'full-budget trial')}: "
        f"{best[score]:.1%} {label} in epoch {best[BEST_EPOCH]:.0f} of {best['budget']}"
        + (f", with {', '.join(used)}." if used else ".")
    ]
    if len(full) > 1:
        lead = 100 * (best[score] - full.iloc[1][score])
        sentences.append(
            f"The runner-up, trial {full.iloc[1]['trial']}, is {lead:.1f} points behind. With one "
            "training each, such a lead may be due to the seed: promote.py tests it on images and, "
            "with --confirm, on new seeds."
        )
    return sentences


def _front(sweep_data: SweepData) -> list[str]:
    """Which trials several objectives leave to choose from."""
    goals, trials = sweep_data.goals, sweep_data.trials
    if not goals.several or not trials[PARETO].any():
        return []
    front = trials[trials[PARETO]]
    named = [
        f"{row['trial']} ({row[goals.best]:.1%} {goals.label}, "
        + ", ".join(f"{each.metric} {row[each.tracked]:.4g}" for each in goals.others)
        + ")"
        for _, row in front.iterrows()
    ]
    return [
        f"{count(len(front), 'full-budget trial')} {'is' if len(front) == 1 else 'are'} on the "
        f"Pareto front of {goals.describe()}, where no other one is better in one objective and "
        f"not worse in the rest: {'; '.join(named)}."
    ]


def _stopping(sweep_data: SweepData) -> list[str]:
    trials = sweep_data.trials
    stopped = int((trials["stop_reason"] == StopReason.ASHA).sum())
    spent, saved = trials[COST].sum() / 3600, float(pd.Series(sweep_data.saved_s).sum()) / 3600
    if not spent:
        return []
    sentence = f"The sweep spent {hours(spent)} of device time"
    if not stopped:
        return [f"{sentence}; no trial was stopped early."]
    return [
        f"{sentence}. Stopping {count(stopped, 'trial')} early saved about {hours(saved)}, at each "
        "trial's own pace."
    ]


def _next(sweep_data: SweepData, advice: Sequence[Advice]) -> list[str]:
    if not advice:
        return []
    command = f"python sweeps/compare.py {sweep_data.name} --next recipe.yaml"  # on any machine
    return [*(each.sentence for each in advice), f"A recipe that does this: {command}"]


def _failures(trials: pd.DataFrame) -> list[str]:
    failed = trials.loc[trials["stop_reason"].map(is_failure), "stop_reason"].value_counts()
    if failed.empty:
        return []
    causes = ", ".join(f"{number} {label_of(reason)}" for reason, number in failed.items())
    return [f"{int(failed.sum())} of {count(len(trials), 'trial')} failed: {causes}."]


def _clear(effect: Effect, score: str) -> str:
    low, high = sorted(abs(100 * bound) for bound in _bounds(effect))
    verb = "gained" if effect.difference.value > 0 else "cost"
    return (
        f"{effect.group} {verb} {abs(100 * effect.difference.value):.1f} points of {score} at "
        f"equal budget, 95 % interval {low:.1f} to {high:.1f}, {effect.trials} against "
        f"{effect.others} trials ({effect.against})."
    )


def _open(path: str, effects: Sequence[Effect]) -> str:
    own = [effect for effect in effects if effect.setting == path]
    enough = [effect for effect in own if effect.enough]
    if not own:
        return f"{path}: not enough trials to tell, the compared ones all had the same value."
    if not enough:
        most = max(own, key=lambda effect: min(effect.trials, effect.others))
        sentence = f"{path}: not enough trials to tell: {FEWEST} on each side are needed. "
        seen = "" if math.isnan(most.difference.low) else f"{_observed(most)}, "
        return f"{sentence}Observed: {seen}{most.trials} against {most.others} trials."
    largest = max(enough, key=lambda effect: abs(effect.difference.value))
    return (
        f"{path}: no clear difference. The largest one, {_observed(largest)}, "
        f"{largest.trials} against {largest.others} trials, may be chance, "
        f"given {count(sum(e.enough for e in effects), 'comparison')}."
    )


def _observed(effect: Effect) -> str:
    low, high = (signed(100 * bound) for bound in _bounds(effect))
    difference = signed(100 * effect.difference.value)
    return f"{effect.group}: {difference} points, 95 % interval {low} to {high}"


def _bounds(effect: Effect) -> tuple[float, float]:
    return effect.difference.low, effect.difference.high


def _set(row: pd.Series, path: str) -> bool:
    return not pd.isna(row[path])


def signed(points: float) -> str:
    """+1.2 or −0.8, with a minus sign at which lines are not broken."""
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def hours(number: float) -> str:
    """A number of hours as text: 12 min, 3.4 h."""
    return f"{number:.1f} h" if number >= 2 else f"{60 * number:.0f} min"
