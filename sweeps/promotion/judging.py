"""The models of a promotion, evaluated on its split: trials, the champion, exports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.promotion.candidates import Candidate
from sweeps.promotion.evaluation import VAL, ModelEvaluation, at_working_size, evaluate_model
from sweeps.promotion.exports.judged import Judge, JudgedExport
from sweeps.promotion.final_training.outcome import Contender
from sweeps.promotion.plan import Baseline, PromotionPlan
from unetexp.data import Dataset, open_dataset
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.surface import Spacing
from unetexp.models.saved_model import read_spec
from unetexp.postprocessing.settings import Postprocessing
from unetexp.tracking.export_record import origin_of
from unetexp.tracking.locate import locate
from unetexp.tuning.model import tune_model
from unetexp.tuning.stored import store
from unetexp.tuning.tune import Tuned


def evaluate_trial(plan: PromotionPlan, trial: Candidate, console: Console) -> ModelEvaluation:
    title = f"trial {trial.trial}"
    with console.status(f"{title}, on the {plan.split} split"):
        folder = locate(trial.run_id, plan.store.uri)
        found = _evaluate(plan, title, trial.run_id, folder, trial.score)
    if trial.run_id not in plan.latencies or not plan.request.exports.serves_weights:
        return found
    # The one that the trial was chosen by: a second one near the limit could fall on its other side
    measured = replace(found.measures, latency_ms=plan.latencies[trial.run_id])
    return replace(found, measures=measured)


def evaluate_final(plan: PromotionPlan, model: Contender, console: Console) -> ModelEvaluation:
    score = None if math.isnan(model.score) else model.score
    with console.status(f"{model.title}, on the {plan.split} split"):
        return _evaluate(plan, model.title, model.run_id, model.folder, score)


def evaluate_baseline(
    plan: PromotionPlan, baseline: Baseline, console: Console
) -> ModelEvaluation | None:
    if baseline.folder is None or baseline.version is None:
        return None
    title = f"the champion, version {baseline.version.version}"
    with console.status(f"{title}, on the {plan.split} split"):
        return _evaluate(plan, title, baseline.version.run_id, baseline.folder)


def _evaluate(
    plan: PromotionPlan, title: str, run_id: str, folder: Path, val_miou: float | None = None
) -> ModelEvaluation:
    data = _data_for(plan, folder)
    unusual: dict[str, Any] = {}  # what the figures are computed with
    if plan.gates.figures != FigureSettings():
        unusual["settings"] = plan.gates.figures
    if (spacings := _spacings_mm(plan)) is not None:
        unusual["spacings_mm"] = spacings
    return evaluate_model(title, run_id, folder, data, plan.split, plan.device, val_miou, **unusual)


def postprocessed(
    plan: PromotionPlan, chosen: ModelEvaluation, folder: Path, console: Console
) -> tuple[ModelEvaluation, Tuned | None]:
    """The chosen model with the postprocessing that helps on validation, if that is asked for."""
    if not plan.request.postprocess:
        return chosen, None
    source = plan.source.recipe.base.data.model_copy(update={"resize": None})
    data = plan.data if plan.data.resize is None else open_dataset(source, to_train=False)
    with console.status(f"postprocessing of {chosen.title}, on validation"):
        tuned = tune_model(chosen.folder, data, VAL, plan.device)
        store(chosen.folder, folder, tuned, VAL, plan.data.fingerprint)
    if tuned.settings == (chosen.spec.postprocessing or Postprocessing()):
        return replace(chosen, folder=folder), tuned
    title = f"{chosen.title}, postprocessed"
    with console.status(f"{title}, on the {plan.split} split"):
        found = _evaluate(plan, title, chosen.run_id, folder, chosen.val_miou)
    # What it was chosen by, where there is a limit
    measures = replace(found.measures, latency_ms=chosen.measures.latency_ms)
    return replace(found, measures=measures), tuned


def judge_exports(
    plan: PromotionPlan, judge: Judge, chosen: ModelEvaluation, scratch: Path, console: Console
) -> tuple[JudgedExport, ...]:
    """The asked exports of the chosen model."""
    if not judge.asked.names:
        return ()
    origin = origin_of(f"runs:/{chosen.run_id}", plan.store.uri)
    figures = {"figures": plan.gates.figures, "spacings_mm": _spacings_mm(plan)}
    with console.status(f"exporting {chosen.title}: {', '.join(judge.asked.names)}"):
        data = _data_for(plan, chosen.folder)
        return judge.judged(chosen.folder, data, origin, scratch, **figures)


def _data_for(plan: PromotionPlan, folder: Path) -> Dataset:
    """The data at the working size of the model in `folder`."""
    return at_working_size(plan.data, plan.source.recipe.base.data, read_spec(folder))


def _spacings_mm(plan: PromotionPlan) -> Mapping[str, Spacing] | None:
    return plan.source.recipe.base.data.spacings_mm(plan.data[plan.split].names)
