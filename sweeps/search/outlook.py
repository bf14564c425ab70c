"""Whether further trials are likely to matter: how likely any of those left gains enough.

A Gaussian process over the settings of the ended trials is asked what the trials that are left
could find if they were the most promising points of the space. Joint draws from it at those points
and at the best trial give the probability that any of them is better by a wanted gain, and the gain
that is to be expected. The noise of seeds is a part of the model: a best trial that was lucky
counts with what it is worth. This is the question of Makarova et al., "Automatic Termination for
Hyperparameter Optimization" (AutoML 2022), and of Optuna's terminator, whose answer, a bound on the
regret of a search without end, depends on neither the trials that are left nor a wanted gain.

n ended trials, c candidates, p picked ones, F features, d draws.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from sweeps.config.recipe import Recipe
from sweeps.config.space import suggest
from sweeps.search.features import features

FEWEST = 12  # trials with a score, before which nothing is concluded
UNLIKELY = 0.05  # a smaller probability of a gain ends the sweep
_LATEST = 100  # trials, with the best, that the model learns from
_CANDIDATES, _MOST_PICKED, _DRAWS = 512, 64, 2000
_BEST_MIXED = 5  # of the best trials, in candidates that have some of their settings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outlook:
    """What the trials that are left may gain over the best one."""

    probability: float  # that any of them is better by the wanted gain
    expected_gain: float  # of the best of them, in units of the score
    left: int

    @property
    def converged(self) -> bool:
        """Whether further trials are unlikely to matter."""
        return self.probability < UNLIKELY


def is_looked_at(ended: int) -> bool:
    """Whether the outlook is computed after so many trials: more rarely, the more there are."""
    next_look = FEWEST
    while next_look < ended:
        next_look += next_look // FEWEST
    return ended == next_look


def outlook(
    recipe: Recipe, trials: Sequence[FrozenTrial], left: int, min_gain: float, seed: int
) -> Outlook | None:
    """What `left` further trials may gain, `min_gain` (of the score, 0 to 1) being wanted.

    `trials` are those that Optuna knows. A trial that was stopped early counts with what it lacks
    in the mean. None while too few have a score: FEWEST, or three for each setting.
    """
    scored = [(trial.params, score) for trial, score in _final_scores(trials)]
    if len(scored) < max(FEWEST, 3 * len(recipe.space)) or left <= 0:
        return None
    scored = _most_telling(scored)
    points, scores = [params for params, _ in scored], np.array([score for _, score in scored])
    best = int(scores.argmax())
    model = _fitted(features(recipe.space, points), scores)
    candidates = list(_candidates(recipe, _ranked(points, scores), seed))
    places = features(recipe.space, candidates)
    picked = _most_promising(model, places, scores.max(), min(left, _MOST_PICKED))
    at = np.vstack([features(recipe.space, [points[best]]), places[picked]])
    drawn = model.sample_y(at, _DRAWS, random_state=seed).T  # (d, 1 + p), without noise
    gain = np.maximum(drawn[:, 1:].max(axis=1) - drawn[:, 0], 0.0)
    return Outlook(float((gain > min_gain).mean()), float(gain.mean()), left)


def _final_scores(trials: Sequence[FrozenTrial]) -> Iterator[tuple[FrozenTrial, float]]:
    """Each trial with the score that it had at its end, or would have had."""
    full = [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    for trial in full:
        yield trial, float(trial.value or 0.0)
    for trial in trials:
        if trial.state == TrialState.PRUNED and trial.intermediate_values and full:
            epoch, score = max(trial.intermediate_values.items())
            yield trial, score + _usual_gain(full, epoch)


def _usual_gain(full: Sequence[FrozenTrial], epoch: int) -> float:
    """What full trials gained after `epoch`, in the mean."""
    gains = [
        float(trial.value or 0.0) - trial.intermediate_values[epoch]
        for trial in full
        if epoch in trial.intermediate_values
    ]
    return float(np.mean(gains)) if gains else 0.0


def _most_telling(
    scored: list[tuple[dict[str, Any], float]],
) -> list[tuple[dict[str, Any], float]]:
    """The latest, and the best one before them."""
    latest = scored[-_LATEST:]
    best = max(scored, key=lambda pair: pair[1])
    return latest if any(pair is best for pair in latest) else [best, *latest]


def _ranked(points: Sequence[dict[str, Any]], scores: Floats) -> list[dict[str, Any]]:
    return [points[index] for index in np.argsort(-scores, kind="stable")[:_BEST_MIXED]]


def _fitted(inputs: Floats, scores: Floats) -> GaussianProcessRegressor:
    """A model of the score without the noise of seeds; `inputs` (n, F), `scores` (n,).

    With one length for all features, or one for each where the scores tell that many apart: by
    the Bayesian information criterion. Lengths that few scores cannot tell would fit their noise.
    """
    count, features_count = inputs.shape
    lengths = (np.array([1.0]), np.full(features_count, 1.0))
    starts = ((1.0, 0.05), (0.1, 0.9))  # settings matter, or seeds
    models = [_likeliest(inputs, scores, length, starts) for length in lengths]
    penalties = [len(model.kernel_.theta) / 2 * math.log(count) for model in models]
    fits = [model.log_marginal_likelihood_value_ for model in models]
    found = models[int(np.argmax(np.subtract(fits, penalties)))].kernel_
    model = GaussianProcessRegressor(
        found.k1, alpha=found.k2.noise_level, optimizer=None, normalize_y=True
    )
    return model.fit(inputs, scores)


def _likeliest(
    inputs: Floats, scores: Floats, lengths: Floats, starts: Sequence[tuple[float, float]]
) -> GaussianProcessRegressor:
    """The model with a noise of its own that explains the scores best, from several starts."""
    models = []
    for signal, noise in starts:
        smooth = ConstantKernel(signal, (1e-3, 1e2)) * Matern(lengths, (0.3, 20.0), nu=2.5)
        noisy = smooth + WhiteKernel(noise, (1e-4, 1.5))
        model = GaussianProcessRegressor(noisy, normalize_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a setting without effect
            models.append(model.fit(inputs, scores))
    return max(models, key=lambda model: model.log_marginal_likelihood_value_)


def _candidates(
    recipe: Recipe, best: Sequence[dict[str, Any]], seed: int
) -> Iterator[dict[str, Any]]:
    """Points by chance, every second one with some settings of one of the `best`."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    fixed, rng = recipe.fixed_values(), np.random.default_rng(seed)
    for number in range(_CANDIDATES):
        drawn = suggest(recipe.space, study.ask(), fixed)
        yield drawn
        taken = {p: v for p, v in best[number % len(best)].items() if rng.random() < 0.7}
        try:
            yield suggest(recipe.space, optuna.trial.FixedTrial({**drawn, **taken}), fixed)
        except ValueError:  # a condition holds whose setting was not drawn
            continue


def _most_promising(
    model: GaussianProcessRegressor, places: Floats, best: float, count: int
) -> NDArray[np.intp]:
    """The indices (p,) of the candidates with the largest expected improvement."""
    mean, spread = model.predict(places, return_std=True)
    ahead = (mean - best) / np.maximum(spread, 1e-12)
    gain = spread * (ahead * stats.norm.cdf(ahead) + stats.norm.pdf(ahead))
    return np.argsort(-gain, kind="stable")[:count]
