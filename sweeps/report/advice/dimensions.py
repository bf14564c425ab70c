"""Which dimension to widen and which choices to drop in the next sweep, where trials are clear.

A range is to be widened at a border where three things agree: the score at equal budget grows
towards it (Spearman's rank correlation, at 5 % after Holm's correction over all ranges), the best
quarter of the trials has its median in the outer quarter of the range, and the best full-budget
trial lies in the outer third. A choice is to be dropped where its trials are clearly worse than the
others (`effects`). A setting may be fixed where every comparison had enough trials and all 95 %
intervals lie within half a point: that is not the same as no clear difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from sweeps.config.space import Choice, Dimension, LogUniform
from sweeps.report.effects import LEVEL, Effect, holm
from sweeps.report.searched_settings import Setting, text
from sweeps.report.sweep_data import EQUAL, SweepData

_FEWEST = 12  # trials with a value of a range
_BEST_SHARE, _FEWEST_BEST = 0.25, 3
_OUTER_QUARTER, _OUTER_THIRD = 0.75, 2 / 3  # of the range, as a position from 0 to 1
_ALIKE = 0.005  # half a point


@dataclass(frozen=True)
class Widen:
    """The best trials lie at a border of a range."""

    path: str
    side: Literal["low", "high"]
    sentence: str


@dataclass(frozen=True)
class Drop:
    """Choices that are clearly worse than the others."""

    path: str
    choices: tuple[Any, ...]
    sentence: str


@dataclass(frozen=True)
class Alike:
    """A setting whose choices all score the same within half a point."""

    path: str
    sentence: str


Advice = Widen | Drop | Alike


def advice(
    sweep_data: SweepData, effects: Sequence[Effect], space: Mapping[str, Dimension]
) -> list[Advice]:
    """What to change in the space; nothing where the trials leave it open.

    Nor with several objectives: what is worse in the first may be better in another.
    """
    if sweep_data.goals.several:
        return []
    searched = [path for path in space if path != "seed"]  # of a sweep that repeats its settings
    settings = [setting for setting in sweep_data.settings if setting.path in searched]
    return [
        *_to_widen(sweep_data, settings, space),
        *_to_drop(sweep_data, settings, effects),
        *_alike(settings, effects),
    ]


def _to_widen(
    sweep_data: SweepData, settings: Sequence[Setting], space: Mapping[str, Dimension]
) -> list[Widen]:
    trials, best = sweep_data.comparable, _best(sweep_data)
    scores = trials[EQUAL].to_numpy(float)
    tested: list[tuple[str, NDArray[np.float64], NDArray[np.float64]]] = []
    for setting in settings:
        dimension = space[setting.path]
        active = setting.active(trials)
        if isinstance(dimension, Choice) or active.sum() < _FEWEST:
            continue
        places = position(dimension, trials.loc[active, setting.path])
        if np.ptp(places) > 0 and np.ptp(scores[active]) > 0:
            tested.append((setting.path, places, scores[active]))
    ranked = [scipy.stats.spearmanr(places, own) for _, places, own in tested]
    adjusted = holm([float(result.pvalue) for result in ranked])
    found = []
    for (path, places, own), result, p in zip(tested, ranked, adjusted, strict=True):
        upwards = result.statistic > 0
        outward = places if upwards else 1 - places
        count = max(_FEWEST_BEST, round(_BEST_SHARE * len(own)))
        middle = float(np.median(outward[np.argsort(-own)[:count]]))
        (place,) = position(space[path], best[[path]]) if path in best else (math.nan,)
        place = place if upwards else 1 - place
        if p < LEVEL and middle >= _OUTER_QUARTER and place >= _OUTER_THIRD:
            side: Literal["low", "high"] = "high" if upwards else "low"
            found.append(Widen(path, side, _widening(path, side, space[path], count)))
    return found


def _widening(path: str, side: str, dimension: Any, count: int) -> str:
    end = "upper" if side == "high" else "lower"
    return (
        f"{path}: widen the range at its {end} end, {getattr(dimension, side):g}. The score grows "
        f"towards it, and at least half of the best {count} trials lie there."
    )


def position(dimension: Any, values: pd.Series) -> NDArray[np.float64]:
    """Where the values (N,) lie in a range, from 0 to 1, in orders of magnitude if it is log."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
    low, high = float(dimension.low), float(dimension.high)
    if isinstance(dimension, LogUniform):
        numbers, low, high = np.log(numbers), math.log(low), math.log(high)
    places: NDArray[np.float64] = (numbers - low) / (high - low)
    return places


def _to_drop(
    sweep_data: SweepData, settings: Sequence[Setting], effects: Sequence[Effect]
) -> list[Drop]:
    best = _best(sweep_data)
    found = []
    for setting in settings:
        worse = {
            effect.group if effect.difference.value < 0 else effect.against
            for effect in effects
            if effect.setting == setting.path
            and effect.clear
            and (effect.difference.value < 0 or _is_one_of_two(setting, effect))
        }
        choices = tuple(
            choice
            for choice in setting.choices
            if f"{setting.path} = {text(choice)}" in worse and choice != best.get(setting.path)
        )
        if choices and len(choices) < len(setting.choices):
            named = ", ".join(map(text, choices))
            verb = "is" if len(choices) == 1 else "are"
            sentence = f"{setting.path}: drop {named}, which {verb} clearly worse than the others."
            found.append(Drop(setting.path, choices, sentence))
    return found


def _is_one_of_two(setting: Setting, effect: Effect) -> bool:
    """Whether a comparison is with one other choice, which the opposite is then true of."""
    return any(effect.against == f"{setting.path} = {text(choice)}" for choice in setting.choices)


def _alike(settings: Sequence[Setting], effects: Sequence[Effect]) -> list[Alike]:
    found = []
    for setting in settings:
        own = [effect for effect in effects if effect.setting == setting.path]
        if own and all(effect.enough and _within(effect) for effect in own):
            found.append(
                Alike(
                    setting.path,
                    f"{setting.path}: it can be fixed. Its values score the same within "
                    f"{100 * _ALIKE:g} points.",
                )
            )
    return found


def _within(effect: Effect) -> bool:
    return effect.difference.low > -_ALIKE and effect.difference.high < _ALIKE


def _best(sweep_data: SweepData) -> pd.Series:
    """The best full-budget trial; empty if there is none."""
    full = sweep_data.scored[sweep_data.scored["full_budget"]]
    return full.iloc[0] if len(full) else pd.Series(dtype=object)
