"""Promoting a model: the sweep's best, proven on the test split, becomes the champion.

The model is chosen by the sweep's objective alone. The test split only judges it: it had no part
in the search, and would have one if it had a say in the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sweeps.config.gates import changed_gates, judge
from sweeps.driver.plan import SweepOptions
from sweeps.promotion.candidates import (
    Candidate,
    candidates,
    full_budget_trials,
    open_data,
    sweep_of_run,
    sweep_to_promote,
)
from sweeps.promotion.evaluation import (
    TEST,
    VAL,
    ModelEvaluation,
    PairedResult,
    PromotionDecision,
    count_use,
    evaluate_model,
)
from sweeps.promotion.lock import promotion_lock
from sweeps.promotion.model_card import card
from sweeps.promotion.registry import MODEL, RegisteredVersion, champion, crown, register, withdraw
from sweeps.promotion.seed_confirmation import Confirmation, confirm, require_enough
from sweeps.tracking.run_writer import RunWriter, now_ms
from sweeps.tracking.store import CONFIRMS, TrackingStore
from unetexp.data import Dataset
from unetexp.errors import CheckpointError, DataError, GateError, UserError
from unetexp.metrics.bootstrap import compare_paired
from unetexp.models.saved_model import read_description, read_spec
from unetexp.stop_signals import shielded
from unetexp.tracking.locate import locate

_FEW_IMAGES = 30


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    sweep: str | None = None  # the newest finished one
    run_id: str | None = None
    confirm: int = 0  # trials that are trained again
    seeds: int = 3  # how often each
    split: str = TEST
    candidates: int = 3
    force: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted paths: promotion.*
    options: SweepOptions = field(default_factory=SweepOptions)  # GPUs, store and storage


@dataclass(frozen=True)
class Promoted:
    """What a promotion did."""

    decision: PromotionDecision
    version: str
    before: RegisteredVersion | None


class Promotion:
    """One promotion: `confirm` if that is asked for, then `settle`."""

    def __init__(self, store: TrackingStore, request: Request, device: torch.device) -> None:
        """Raises UserError for all that can be wrong with the request; nothing is changed."""
        self.store, self.request, self.device = store, request, device
        self.notices: list[str] = []
        run_id = request.run_id
        self.origin = (
            sweep_to_promote(store, request.sweep)
            if run_id is None
            else sweep_of_run(store, run_id)
        )
        self.gates = changed_gates(self.origin.recipe.promotion, request.changes)
        self.trials = full_budget_trials(store, self.origin)
        self.able = candidates(self.origin, self.trials, run_id)
        self.chosen = self.able[0]
        if request.confirm:
            require_enough(self.trials, request.confirm)
        self.data = open_data(self.origin)
        self.split = self._split()
        self._rival(champion(store))
        self.confirmation: Confirmation | None = None
        self._take_notice()

    def confirm(self, console: Console) -> Confirmation:
        """Train the best trials again with new seeds; may take as long as the sweep did."""
        others = [trial for trial in self.trials if trial.run_id != self.chosen.run_id]
        again = [self.chosen, *others][: self.request.confirm]
        request = self.request
        self.confirmation = confirm(
            self.store, self.origin, again, request.seeds, request.options, console
        )
        return self.confirmation

    def settle(
        self, console: Console, show: Callable[[PromotionDecision], None], *, dry: bool
    ) -> Promoted | None:
        """Judge the chosen model and make it the champion, while no other promotion does so.

        `show` is given what was found, before anything is changed; a `dry` one changes nothing.
        Raises GateError where a gate is red and not forced.
        """
        with promotion_lock(self.store, lambda text: console.print(text)):
            decision = self.judge(console)
            show(decision)
            if decision.red and not decision.forced:
                raise GateError(
                    "".join(f"gate red: {verdict.describe()}\n" for verdict in decision.red)
                    + "Nothing was changed. --force promotes it all the same; its card says so."
                )
            return None if dry else self.crown(decision)

    def judge(self, console: Console) -> PromotionDecision:
        """Evaluate the candidates and the present champion; a use of the test split."""
        self.present = champion(self.store)
        folder, why_none = self._rival(self.present)
        models = [self._appraised(trial, console) for trial in self.able[: self.request.candidates]]
        chosen, *others = models
        rival = None
        if folder is not None and self.present is not None:
            title = f"the champion, version {self.present.version}"
            with console.status(f"{title}, on the {self.split} split"):
                rival = self._appraise(title, self.present.run_id, folder)
        figures = rival.assessment.figures if rival else None
        verdicts = judge(self.gates, chosen.measures, figures, why_none)
        uses = count_use(self.store, self.data.fingerprint) if self.split == TEST else 0
        return PromotionDecision(
            origin=self.origin,
            data=self.data,
            split=self.split,
            uses=uses,
            trial=self.chosen,
            asked_for=self.request.run_id is not None,
            chosen=chosen,
            others=tuple(others),
            runner_up=_against(chosen, others[0]) if others else None,
            champion=_against(chosen, rival) if rival else None,
            verdicts=tuple(verdicts),
            confirmation=self.confirmation,
            notices=tuple(self.notices),
            forced=self.request.force,
        )

    def crown(self, decision: PromotionDecision) -> Promoted:
        """Register the chosen model and make it the champion.

        Raises LostRaceError where another promotion on a server was faster.
        """
        with shielded() as interrupted:
            version = register(
                self.store,
                decision.chosen.folder,
                card=card(decision),
                tags=_tags(decision),
                run_id=decision.chosen.run_id,
                example=self.data[self.split][0].image.permute(1, 2, 0).numpy(),
            )
            if interrupted():
                withdraw(self.store, version)
                raise KeyboardInterrupt
            before = crown(self.store, version, compared_with=self.present)
            self._log_figures(decision)
        return Promoted(decision, version, before)

    def _split(self) -> str:
        """The split to judge by; DataError where there is none."""
        asked, there = self.request.split, self.data.splits
        if asked in there:
            return asked
        if self.request.force:
            self.notices.append(
                "The data has no test split: forced to judge by the validation split."
            )
            return VAL
        raise DataError(
            f"the data of sweep {self.origin.name!r} has no test split (it has: "
            f"{', '.join(there)}). --split val, or --force, judges by the validation split, by "
            "which the sweep has chosen, so that its figures flatter; the card says so. Better: "
            "give the data a test split and run a new sweep."
        )

    def _rival(self, present: RegisteredVersion | None) -> tuple[Path | None, str]:
        """The champion's files, or why there is nothing to compare with.

        Raises UserError for a champion that cannot be compared with, unless that is forced.
        """
        if present is None:
            return None, "there is no champion yet"
        who = f"the champion, version {present.version},"
        try:
            folder = locate(f"models:/{MODEL}/{present.version}", self.store.uri)
            why = _misfit(folder, self.data)
        except CheckpointError as error:
            why = f"cannot be read ({error})"
        if not why:
            return folder, ""
        if self.request.force:
            return None, f"{who} {why}"
        raise UserError(
            f"{who} {why}. The two cannot be compared: --force promotes without comparing, and "
            "the card says so."
        )

    def _appraised(self, trial: Candidate, console: Console) -> ModelEvaluation:
        title = f"trial {trial.trial}"
        with console.status(f"{title}, on the {self.split} split"):
            folder = locate(trial.run_id, self.store.uri)
            return self._appraise(title, trial.run_id, folder, trial.val_miou)

    def _appraise(
        self, title: str, run_id: str, folder: Path, val_miou: float | None = None
    ) -> ModelEvaluation:
        return evaluate_model(title, run_id, folder, self.data, self.split, self.device, val_miou)

    def _take_notice(self) -> None:
        """What has to be said beside the figures."""
        origin, best, images = self.origin, self.trials[0], len(self.data[self.split])
        if origin.run.info.status != "FINISHED":
            self.notices.append(f"Sweep {origin.name} has not run to its end.")
        if CONFIRMS in origin.run.data.tags:
            self.notices.append(
                f"Sweep {origin.name} only trained again what "
                f"{origin.run.data.tags[CONFIRMS]} had found."
            )
        if best.val_miou > self.chosen.val_miou:
            why = "asked for by its run" if self.request.run_id else "the best that kept weights"
            self.notices.append(
                f"Trial {best.trial} scored higher in the sweep ({best.val_miou:.4f} against "
                f"{self.chosen.val_miou:.4f}); trial {self.chosen.trial} is {why}."
            )
        if images < _FEW_IMAGES:
            self.notices.append(
                f"The {self.split} split has {images} images: intervals are rough, and small "
                "differences cannot be seen."
            )
        present = champion(self.store)
        folder, _ = self._rival(present)
        if folder and read_description(folder)["data_fingerprint"] != self.data.fingerprint:
            self.notices.append(
                "The present champion was trained on other data: it may have learnt from images "
                f"of this {self.split} split."
            )
        if present and present.run_id == self.chosen.run_id:
            self.notices.append(
                f"Trial {self.chosen.trial} is the present champion, version {present.version}."
            )

    def _log_figures(self, decision: PromotionDecision) -> None:
        """The test figures as metrics of the run."""
        if decision.split == TEST:
            figures = {f"test/{name}": v for name, v in decision.chosen.assessment.figures.items()}
            run = RunWriter(self.store.client, decision.chosen.run_id)
            run.log_metrics(figures, decision.trial.epoch, now_ms())


def _misfit(folder: Path, data: Dataset) -> str:
    """Why the model in `folder` cannot be judged on `data`; empty where it can."""
    spec = read_spec(folder)
    if spec.class_names != data.class_names:
        return (
            f"has the classes {', '.join(spec.class_names)}, and this data "
            f"{', '.join(data.class_names)}"
        )
    return ""


def _against(chosen: ModelEvaluation, other: ModelEvaluation) -> PairedResult:
    comparison = compare_paired(chosen.assessment.matrices, other.assessment.matrices)
    return PairedResult(other, comparison)


def _tags(decision: PromotionDecision) -> dict[str, str]:
    return {
        "sweep.name": decision.origin.name,
        "tune.trial_id": decision.trial.trial,
        "data.fingerprint": decision.data.fingerprint,
        "promotion.split": decision.split,
        "promotion.forced": str(bool(decision.red and decision.forced)),
        f"{decision.split}/miou": f"{decision.chosen.miou:.6f}",
    }
