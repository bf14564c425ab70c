"""Which of several proposals promises most for a second on a device.

The expected improvement over the best score, divided by the seconds that a trial is expected to
take (Snoek et al., "Practical Bayesian Optimization of Machine Learning Algorithms", NeurIPS 2012).
The seconds have the share of trials that are left as exponent, so that costly settings are not
passed over for good (cost-cooling: Lee et al., "Cost-aware Bayesian Optimization",
arXiv:2003.10870). We differ: forests of extremely randomised trees, as most settings are choices,
where they have Gaussian processes; and the proposals to choose from are the sampler's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor

from sweeps.config.recipe import Recipe
from sweeps.config.space import Dimension, suggest
from sweeps.search.bounded_storage import LATEST
from sweeps.search.features import features
from sweeps.search.trial import Trial

PROPOSALS = 24
FEWEST = 8  # ended trials that there is something to learn from
_LEAST_SPREAD = 1e-3  # of the score: what trees that agree still do not know


@dataclass(frozen=True)
class Known:
    """A trial that ended."""

    values: Mapping[str, Any]
    score: float  # its best
    epoch_s: float  # seconds an epoch on its worker


def proposal_per_second(
    recipe: Recipe,
    study: optuna.Study,
    samplers: Sequence[optuna.samplers.BaseSampler],
    ended: Sequence[Trial],
    left: float,
) -> dict[str, Any]:
    """The values for the next trial of the study that promise most for their time."""
    proposals = drafts(study, samplers, recipe.space, recipe.fixed_values())
    known = [
        Known(trial.point, trial.progress.best, trial.progress.wall_s() / trial.epoch)
        for trial in ended[-LATEST:]
        if trial.point is not None and trial.progress.best_epoch and trial.progress.wall_s() > 0
    ]
    return most_per_second(proposals, recipe.space, known, left)


def drafts(
    study: optuna.Study,
    samplers: Iterable[optuna.samplers.BaseSampler],
    space: Mapping[str, Dimension],
    fixed: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """What each sampler would propose next in the study, which stays as it is."""
    draft = optuna.create_study(directions=study.directions)
    draft.add_trials(copy.deepcopy(study.get_trials(deepcopy=False)))
    found = []
    for sampler in samplers:
        draft.sampler = sampler
        trial = draft.ask()
        found.append(suggest(space, trial, fixed))
        draft.tell(trial, state=TrialState.FAIL)  # so that the next is not kept away from it
    return found


def most_per_second(
    proposals: Sequence[dict[str, Any]],
    space: Mapping[str, Dimension],
    known: Sequence[Known],
    left: float,
) -> dict[str, Any]:
    """The proposal with the largest expected improvement a second; `left` of the budget, 0 to 1.

    The first proposal where fewer than FEWEST trials are known.
    """
    if len(known) < FEWEST:
        return proposals[0]
    inputs = features(space, [trial.values for trial in known])
    asked = features(space, proposals)
    scores = np.array([trial.score for trial in known])
    trees = _forest().fit(inputs, scores).estimators_
    predicted = np.array([tree.predict(asked) for tree in trees])
    mean, spread = predicted.mean(axis=0), np.maximum(predicted.std(axis=0), _LEAST_SPREAD)
    ahead = (mean - scores.max()) / spread
    gain = spread * (ahead * stats.norm.cdf(ahead) + stats.norm.pdf(ahead))
    log_seconds = _forest().fit(inputs, np.log([trial.epoch_s for trial in known])).predict(asked)
    return proposals[int(np.argmax(np.log(gain + 1e-300) - left * log_seconds))]


def _forest() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0)
