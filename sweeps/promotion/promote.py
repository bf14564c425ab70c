"""Promotes a model: the sweep's best becomes the champion, after an evaluation on the test split.

The model is chosen by the sweep's objective alone, among those that are fast enough where a limit
is asked for. The test split is only used to evaluate it: if it were used to choose, it would be
part of the search.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.promotion.candidates import Candidate
from sweeps.promotion.card.model_card import card
from sweeps.promotion.evaluation import (
    TEST,
    VAL,
    ModelEvaluation,
    PairedResult,
    PromotionDecision,
    at_working_size,
    count_use,
    evaluate_model,
)
from sweeps.promotion.exports.judged import Judge, JudgedExport, judged_weights
from sweeps.promotion.final_training.outcome import Contender, FinalTraining
from sweeps.promotion.final_training.settings import FinalRequest
from sweeps.promotion.final_training.train import FinalTrainer
from sweeps.promotion.gates import check_gates
from sweeps.promotion.lock import promotion_lock
from sweeps.promotion.plan import Baseline, PromotionPlan, Request, find_baseline
from sweeps.promotion.registry import RegisteredVersion, register, set_champion, withdraw
from sweeps.promotion.seed_confirmation import Confirmation, confirm
from sweeps.tracking.run_writer import RunWriter, now_ms
from unetexp.data import Dataset, open_dataset
from unetexp.errors import GateError
from unetexp.metrics.bootstrap import compare_paired
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.surface import Spacing
from unetexp.models.saved_model import read_spec
from unetexp.postprocessing.settings import Postprocessing
from unetexp.runtimes.flavors import FOLDER
from unetexp.system.stop_signals import shielded
from unetexp.tracking.export_record import origin_of, record_export
from unetexp.tracking.locate import locate
from unetexp.tuning.model import tune_model
from unetexp.tuning.stored import store
from unetexp.tuning.tune import Tuned


@dataclass(frozen=True)
class Promoted:
    """The result of a promotion."""

    decision: PromotionDecision
    version: str
    before: RegisteredVersion | None


def confirm_choice(plan: PromotionPlan, console: Console) -> Confirmation:
    """Train the best trials again with new seeds; may take as long as the sweep did."""
    request = plan.request
    others = [trial for trial in plan.trials if trial.run_id != plan.chosen.run_id]
    again = [plan.chosen, *others][: request.confirm]
    return confirm(plan.store, plan.source, again, request.seeds, request.options, console)


def train_final(plan: PromotionPlan, final: FinalRequest, console: Console) -> FinalTraining:
    """Train the chosen trial's settings to the end; may take longer than the sweep did."""
    return FinalTrainer(
        store=plan.store,
        source=plan.source,
        trial=plan.chosen,
        asked=final,
        gates=plan.gates,
        data=plan.data,
        device=plan.device,
        options=plan.request.options,
        console=console,
        to_continue=_same_again(plan, final),
    ).run()


def _same_again(plan: PromotionPlan, final: FinalRequest) -> str:
    """The command that was given, with the sweep's name."""
    request, usual = plan.request, Request()
    asked = ["--run", request.run_id] if request.run_id else [plan.source.name]
    limit = request.max_latency_ms
    values = {
        "--max-latency-ms": None if limit is None else f"{limit:g}",
        "--split": None if request.split == usual.split else request.split,
        "--candidates": None if request.candidates == usual.candidates else request.candidates,
        "--gpus": request.options.gpus,
        "--storage": request.options.storage,
    }
    given = [part for flag, at in values.items() if at is not None for part in (flag, str(at))]
    gates = [part for path, at in request.changes.items() for part in ("--set", f"{path}={at}")]
    force = ["--force"] if request.force else []
    force += ["--postprocess"] if request.postprocess else []
    exports = request.exports.arguments()
    return plan.store.command(
        "promote", *asked, *final.arguments(), *exports, *given, *gates, *force
    )


def promote(
    plan: PromotionPlan,
    confirmation: Confirmation | None,
    console: Console,
    show: Callable[[PromotionDecision], None],
    *,
    dry: bool,
    final: FinalTraining | None = None,
) -> Promoted | None:
    """Evaluate the chosen model and make it the champion, under the promotion lock.

    `show` gets the decision before anything is changed; with `dry` nothing is changed.
    Raises GateError where a gate is red and not forced.
    """
    with (
        promotion_lock(plan.store, lambda text: console.print(text)),
        tempfile.TemporaryDirectory(prefix="unetexp-exports-") as scratch,
    ):
        baseline = find_baseline(plan.store, plan.data, force=plan.request.force)
        folder = Path(scratch, FOLDER)  # by this name it goes into the registered model
        decision = decide(plan, baseline, confirmation, console, final, folder)
        show(decision)
        _require_green(decision)
        return None if dry else make_champion(plan, baseline, decision)


def decide(
    plan: PromotionPlan,
    baseline: Baseline,
    confirmation: Confirmation | None,
    console: Console,
    final: FinalTraining | None,
    scratch: Path,
) -> PromotionDecision:
    """Evaluate the candidates and the current champion; counts a use of the test split.

    A model of the `final` training comes first where it was picked. Exports are written into
    `scratch`.
    """
    trials = plan.candidates[: plan.request.candidates]
    evaluated = [_evaluate_trial(plan, trial, console) for trial in trials]
    if final is not None:
        beside = [_evaluate_final(plan, each, console) for each in final.others]
        first = [_evaluate_final(plan, final.chosen, console)] if final.is_new else []
        evaluated = [*first, *beside, *evaluated] if final.is_new else [*evaluated, *beside]
    chosen, *others = evaluated
    chosen, tuned = _tuned(plan, chosen, scratch.parent / "model", console)
    champion = _evaluate_baseline(plan, baseline, console)
    metrics = champion.assessment.metrics if champion else None
    verdicts = check_gates(plan.gates, chosen.measures, metrics, baseline.why_none)
    asked = plan.request.exports
    judge = Judge(asked, plan.gates, plan.split, metrics, baseline.why_none)
    exports = _judge_exports(plan, judge, chosen, scratch, console)
    of_exports = [verdict for each in exports for verdict in each.verdicts]
    uses = count_use(plan.store, plan.data.fingerprint) if plan.split == TEST else 0
    return PromotionDecision(
        source=plan.source,
        data=plan.data,
        split=plan.split,
        uses=uses,
        trial=plan.chosen,
        asked_for=plan.request.run_id is not None,
        chosen=chosen,
        others=tuple(others),
        runner_up=_compare(chosen, others[0]) if others else None,
        champion=_compare(chosen, champion) if champion else None,
        verdicts=(*judged_weights(verdicts, asked), *of_exports),
        confirmation=confirmation,
        warnings=plan.warnings,
        forced=plan.request.force,
        max_latency_ms=plan.request.max_latency_ms,
        final=final,
        exports=exports,
        tuned=tuned,
    )


def make_champion(plan: PromotionPlan, baseline: Baseline, decision: PromotionDecision) -> Promoted:
    """Register the chosen model and make it the champion.

    Raises LostRaceError where another promotion on a server was faster.
    """
    with shielded() as interrupted:
        version = register(
            plan.store,
            decision.chosen.folder,
            card=card(decision),
            tags=_tags(decision),
            run_id=decision.chosen.run_id,
            example=plan.data[plan.split][0].image.permute(1, 2, 0).numpy(),
            exports={each.name: each.exported.path for each in decision.exports},
            flavor=plan.request.exports.flavor,
        )
        if interrupted():
            withdraw(plan.store, version)
            raise KeyboardInterrupt
        before = set_champion(plan.store, version, compared_with=baseline.version)
        _log_test_metrics(plan, decision)
        _record_exports(plan, decision)
    return Promoted(decision, version, before)


def _evaluate_trial(plan: PromotionPlan, trial: Candidate, console: Console) -> ModelEvaluation:
    title = f"trial {trial.trial}"
    with console.status(f"{title}, on the {plan.split} split"):
        folder = locate(trial.run_id, plan.store.uri)
        found = _evaluate(plan, title, trial.run_id, folder, trial.score)
    if trial.run_id not in plan.latencies or not plan.request.exports.serves_weights:
        return found
    # The one that the trial was chosen by: a second one near the limit could fall on its other side
    measured = replace(found.measures, latency_ms=plan.latencies[trial.run_id])
    return replace(found, measures=measured)


def _evaluate_final(plan: PromotionPlan, model: Contender, console: Console) -> ModelEvaluation:
    score = None if math.isnan(model.score) else model.score
    with console.status(f"{model.title}, on the {plan.split} split"):
        return _evaluate(plan, model.title, model.run_id, model.folder, score)


def _evaluate_baseline(
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


def _tuned(
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
    if tuned.settings == Postprocessing():
        return replace(chosen, folder=folder), tuned
    title = f"{chosen.title}, postprocessed"
    with console.status(f"{title}, on the {plan.split} split"):
        found = _evaluate(plan, title, chosen.run_id, folder, chosen.val_miou)
    # What it was chosen by, where there is a limit
    measures = replace(found.measures, latency_ms=chosen.measures.latency_ms)
    return replace(found, measures=measures), tuned


def _judge_exports(
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


def _compare(chosen: ModelEvaluation, other: ModelEvaluation) -> PairedResult:
    comparison = compare_paired(chosen.assessment.matrices, other.assessment.matrices)
    return PairedResult(other, comparison)


def _require_green(decision: PromotionDecision) -> None:
    if decision.red and not decision.forced:
        raise GateError(
            "".join(f"gate red: {verdict.describe()}\n" for verdict in decision.red)
            + "Nothing was changed. --force promotes it anyway; its model card says so."
        )


def _log_test_metrics(plan: PromotionPlan, decision: PromotionDecision) -> None:
    """The scores on the test split as metrics of the run."""
    if decision.split == TEST:
        metrics = {f"test/{name}": v for name, v in decision.chosen.measures.metrics.items()}
        run = RunWriter(plan.store.client, decision.chosen.run_id)
        run.log_metrics(metrics, int(decision.chosen.description["epoch"]), now_ms())


def _record_exports(plan: PromotionPlan, decision: PromotionDecision) -> None:
    """The exports' figures and cards in the model's run, as `unetexp export` keeps them."""
    for each in decision.exports:
        metrics = {
            **each.proof.metrics(),
            f"{decision.split}_miou": each.metrics["miou"],
            "served_latency_ms": each.latency_ms,
        }
        card_text = each.exported.card.read_text("utf-8")
        record_export(decision.chosen.run_id, each.name, metrics, card_text, plan.store.uri)


def _tags(decision: PromotionDecision) -> dict[str, str]:
    return {
        "sweep.name": decision.source.name,
        "tune.trial_id": decision.trial.trial,
        "data.fingerprint": decision.data.fingerprint,
        "promotion.split": decision.split,
        "promotion.forced": str(bool(decision.red and decision.forced)),
        f"{decision.split}/miou": f"{decision.chosen.miou:.6f}",
        **({"promotion.model": decision.final.chosen.title} if decision.final else {}),
        **({"postprocessing": decision.tuned.verdict} if decision.tuned else {}),
        **_export_tags(decision),
    }


def _export_tags(decision: PromotionDecision) -> dict[str, str]:
    if not decision.exports:
        return {}
    names = ", ".join(each.name for each in decision.exports)
    return {"exports": names, "flavor": decision.flavor}
