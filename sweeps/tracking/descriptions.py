"""The descriptions that the MLflow UI shows of a sweep and of its trials, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.config.recipe import Recipe
from sweeps.state.progress import SweepProgress, TrialProgress, why_converged
from sweeps.state.stop_reason import StopReason
from sweeps.text import count, paragraphs, settings
from unetexp.data import Dataset
from unetexp.errors import listed

_CLASSES_NAMED = 10


def sweep_note(name: str, recipe: Recipe, data: Dataset) -> str:
    """What a sweep varies, on which data, and the commands for its trials."""
    images = ", ".join(f"{len(held['images'])} {key}" for key, held in data.members().items())
    return paragraphs(
        f"Searches for the U-Net with the best {_aims(recipe)}: "
        f"{count(recipe.budget.trials, 'trial')} of at most {count(recipe.base.epochs, 'epoch')}. "
        f"Recipe `{recipe.name}`. {recipe.description}".rstrip(),
        f"Compare its trials: `python sweeps/compare.py {name}`. Promote the best: "
        f"`python sweeps/promote.py {name}`. The report is among the artifacts.",
        "Searched settings:",
        "\n".join(f"- `{path}`: {some.describe()}" for path, some in recipe.space.items()),
        f"Data: `{recipe.base.data.kind}`, images: {images}; "
        f"{len(data.class_names)} classes: {listed(data.class_names, _CLASSES_NAMED)}.",
    )


def _aims(recipe: Recipe) -> str:
    return " and ".join(f"`{objective.metric}`" for objective in recipe.goals.objectives)


def sweep_outcome(reason: StopReason, progress: SweepProgress) -> str:
    """How a sweep ended, and its best trial."""
    counts = [
        f"{progress.count(StopReason.COMPLETED)} completed",
        f"{progress.count(StopReason.ASHA)} stopped early",
        f"{progress.failed} failed",
        f"{progress.count(StopReason.INTERRUPTED)} interrupted",
    ]
    text = f"Ended: {reason.label}. Trials: {', '.join(counts)}."
    if progress.converged is not None:
        why = why_converged(progress.converged)
        text = f"{text} {why[0].upper()}{why[1:]}."
    if not progress.ranking:
        return f"{text} None has a score."
    best = progress.ranking[0]
    partial = "" if best.reason is StopReason.COMPLETED else ", none of them with the full budget"
    score, front = f"`{progress.goals.score}` **{best.best:.4f}**", ""
    if progress.front:
        named = ", ".join(trial.id for trial in progress.front)
        front = f" On the Pareto front of {progress.goals.describe()}: trials {named}."
    return (
        f"{text} The best{partial}: trial **{best.id}**, {score} in epoch {best.best_epoch}, with "
        f"{settings(best.values)}.{front}"
    )


def trial_note(trial: str, values: Mapping[str, Any]) -> str:
    """A trial's searched settings and its artifacts."""
    varied = f"Trial **{trial}**, with {settings(values)}." if values else f"Trial **{trial}**."
    return (
        f"{varied} Artifacts: `config.yaml` holds all its settings, `overlay.png` predictions of "
        "its best epoch."
    )


def trial_outcome(reason: StopReason, trial: TrialProgress) -> str:
    """How a trial ended, and its best epoch."""
    explained = "" if reason.label == reason else f" ({reason.label})"
    text = f"Ended as {reason}{explained} after {count(trial.epoch, 'epoch')}."
    if trial.best_epoch:
        text += f" Best {trial.goals.score} {trial.best:.4f} in epoch {trial.best_epoch}."
    return text
