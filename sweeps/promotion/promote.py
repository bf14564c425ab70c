"""Promotes a model: the sweep's best becomes the champion, after an evaluation on the test split.

The model is chosen by the sweep's objective alone, among those that are fast enough where a limit
is asked for. The test split is only used to evaluate it: if it were used to choose, it would be
part of the search.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sweeps.promotion.card.model_card import card
from sweeps.promotion.confirmation.confirm import confirm
from sweeps.promotion.confirmation.outcome import Confirmation
from sweeps.promotion.evaluation import (
    TEST,
    ModelEvaluation,
    PairedResult,
    PromotionDecision,
    count_use,
)
from sweeps.promotion.exports.judged import Judge, judged_weights
from sweeps.promotion.final_training.outcome import FinalTraining
from sweeps.promotion.final_training.settings import FinalRequest
from sweeps.promotion.final_training.train import FinalTrainer
from sweeps.promotion.final_training.validation import Validation
from sweeps.promotion.gates import check_gates
from sweeps.promotion.judging import (
    evaluate_baseline,
    evaluate_final,
    evaluate_trial,
    judge_exports,
    postprocessed,
)
from sweeps.promotion.lock import promotion_lock
from sweeps.promotion.plan import Baseline, PromotionPlan, Request, find_baseline
from sweeps.promotion.registry import RegisteredVersion, register, set_champion, withdraw
from sweeps.tracking.run_writer import RunWriter, now_ms
from unetexp.errors import GateError
from unetexp.metrics.bootstrap import compare_paired
from unetexp.runtimes.flavors import FOLDER
from unetexp.system.stop_signals import shielded
from unetexp.tracking.export_record import record_export


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
    validation = None
    if request.race:
        validation = Validation(plan.data, plan.source.goals.score, plan.device)
    asked = (request.seeds, request.options, console, validation)
    return confirm(plan.store, plan.source, again, *asked)


def train_final(
    plan: PromotionPlan, final: FinalRequest, console: Console, *, dry: bool = False
) -> FinalTraining:
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
        flavor=plan.request.exports.flavor,
        to_continue=_same_again(plan, final, dry),
    ).run()


def _same_again(plan: PromotionPlan, final: FinalRequest, dry: bool) -> str:
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
    switches = {
        "--force": request.force,
        "--postprocess": request.postprocess,
        "--dry-run": dry,
    }
    on = [flag for flag, asked_for in switches.items() if asked_for]
    exports = request.exports.arguments()
    return plan.store.command("promote", *asked, *final.arguments(), *exports, *given, *gates, *on)


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
    evaluated = [evaluate_trial(plan, trial, console) for trial in trials]
    if final is not None:
        beside = [evaluate_final(plan, each, console) for each in final.others]
        first = [evaluate_final(plan, final.chosen, console)] if final.is_new else []
        evaluated = [*first, *beside, *evaluated] if final.is_new else [*evaluated, *beside]
    chosen, *others = evaluated
    chosen, tuned = postprocessed(plan, chosen, scratch.parent / "model", console)
    champion = evaluate_baseline(plan, baseline, console)
    metrics = champion.assessment.metrics if champion else None
    verdicts = check_gates(plan.gates, chosen.measures, metrics, baseline.why_none)
    asked = plan.request.exports
    timed_ms = plan.latencies.get(chosen.run_id)
    judge = Judge(asked, plan.gates, plan.split, metrics, baseline.why_none, timed_ms)
    exports = judge_exports(plan, judge, chosen, scratch, console)
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
