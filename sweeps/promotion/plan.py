"""A promotion that has been checked; nothing has been evaluated or changed yet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sweeps.config.gates import Gates, changed_gates
from sweeps.driver.plan import SweepOptions
from sweeps.promotion.candidates import (
    Candidate,
    SourceSweep,
    candidates,
    full_budget_trials,
    open_data,
    sweep_of_run,
    sweep_to_promote,
)
from sweeps.promotion.confirmation.confirm import require_enough
from sweeps.promotion.evaluation import TEST, VAL, at_working_size
from sweeps.promotion.exports.asked import ExportRequest
from sweeps.promotion.exports.judged import served_ms
from sweeps.promotion.final_training.settings import FinalRequest
from sweeps.promotion.latency_limit import fast_enough, weights_ms
from sweeps.promotion.registry import MODEL, RegisteredVersion, champion
from sweeps.tracking.own_files import require_own_files
from sweeps.tracking.store import CONFIRMS, FINAL_OF, TrackingStore
from unetexp.data import Dataset
from unetexp.errors import CheckpointError, DataError, UserError
from unetexp.models.saved_model import read_description, read_spec
from unetexp.tracking.locate import locate

_FEW_IMAGES = 30


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    sweep: str | None = None  # the newest finished one
    run_id: str | None = None
    confirm: int = 0  # trials that are trained again
    seeds: int = 3  # trainings per trial of `confirm`
    race: bool = False  # trials of `confirm` that are clearly behind get no further seeds
    final: FinalRequest | None = None  # train the chosen trial's settings to the end
    split: str = TEST
    candidates: int = 3
    max_latency_ms: float | None = None  # the best trial that holds it is taken
    exports: ExportRequest = field(default_factory=ExportRequest)  # registered beside the weights
    postprocess: bool = False  # choose what is done to labels and probabilities on validation
    force: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted paths: promotion.*
    options: SweepOptions = field(default_factory=SweepOptions)  # GPUs, store and storage


@dataclass(frozen=True)
class PromotionPlan:
    """Everything a promotion needs to start."""

    store: TrackingStore
    request: Request
    device: torch.device
    source: SourceSweep
    gates: Gates
    trials: tuple[Candidate, ...]  # had the full budget, the best first
    candidates: tuple[Candidate, ...]  # those that kept their weights, the chosen one first
    data: Dataset
    split: str
    warnings: tuple[str, ...]
    latencies: Mapping[str, float] = field(default_factory=dict)  # ms, by run id, where measured

    @property
    def chosen(self) -> Candidate:
        return self.candidates[0]


@dataclass(frozen=True)
class Baseline:
    """The champion as a model to compare with, or why there is none."""

    version: RegisteredVersion | None
    folder: Path | None
    why_none: str = ""


def plan_promotion(store: TrackingStore, request: Request, device: torch.device) -> PromotionPlan:
    """Check the whole request; changes nothing. Raises UserError for each kind of mistake."""
    run_id = request.run_id
    if run_id is None:
        source = sweep_to_promote(store, request.sweep)
    else:
        source = sweep_of_run(store, run_id)
    trains = request.confirm > 0 or request.final is not None
    beside = trains and request.options.storage is None
    require_own_files(store.uri, source.run, storage=beside)
    gates = _gates(source, request)
    trials = full_budget_trials(store, source)
    able = candidates(store, source, trials, run_id)
    if request.confirm:
        require_enough(trials, request.confirm)
    data = open_data(source)
    gates.require_classes(data.class_names)
    split = _split(source, data, request)
    _require_val(source, data, request)
    _require_unseen_val(source, data, request)
    baseline = find_baseline(store, data, force=request.force)
    latencies: dict[str, float] = {}
    if request.max_latency_ms is not None:
        timed = partial(_served_ms, store, source, data, device, request.exports)
        able, latencies = fast_enough(
            able,
            timed,
            request.max_latency_ms,
            flavor=request.exports.flavor,
            force=request.force,
        )
    warnings = [
        *_forced_split_warnings(split, request),
        *_source_warnings(source),
        *_choice_warnings(trials[0], able[0], request),
        *_front_warnings(source, trials, request),
        *_few_images_warnings(data, split),
        *_baseline_warnings(baseline, able[0], data, split),
    ]
    return PromotionPlan(
        store=store,
        request=request,
        device=device,
        source=source,
        gates=gates,
        trials=tuple(trials),
        candidates=tuple(able),
        data=data,
        split=split,
        warnings=tuple(warnings),
        latencies=latencies,
    )


def _served_ms(
    store: TrackingStore,
    source: SourceSweep,
    data: Dataset,
    device: torch.device,
    exports: ExportRequest,
    trial: Candidate,
) -> float:
    """Milliseconds for one image of the trial's model, here, as it would be served."""
    folder = locate(trial.run_id, store.uri)
    if exports.serves_weights:
        return weights_ms(folder, data, device)
    own = at_working_size(data, source.recipe.base.data, read_spec(folder))
    return served_ms(exports.flavor, folder, own)


def _gates(source: SourceSweep, request: Request) -> Gates:
    """The recipe's gates with the request's changes."""
    limit = request.max_latency_ms
    own = {} if limit is None else {"promotion.max_latency_ms": limit}
    return changed_gates(source.recipe.promotion, {**request.changes, **own})


def find_baseline(store: TrackingStore, data: Dataset, *, force: bool) -> Baseline:
    """The current champion's files, or why there is nothing to compare with.

    Raises UserError for a champion that cannot be compared with, unless `force` is given.
    """
    present = champion(store)
    if present is None:
        return Baseline(None, None, "there is no champion yet")
    who = f"the champion, version {present.version},"
    try:
        folder = locate(f"models:/{MODEL}/{present.version}", store.uri)
        why = _misfit(folder, data)
    except CheckpointError as error:
        why = f"cannot be read ({error})"
    if not why:
        return Baseline(present, folder)
    if force:
        return Baseline(present, None, f"{who} {why}")
    raise UserError(
        f"{who} {why}, so the two cannot be compared. --force promotes without comparing, and "
        "the model card says so."
    )


def _split(source: SourceSweep, data: Dataset, request: Request) -> str:
    """The split to evaluate on; DataError where it is missing."""
    if request.split in data.splits and not (data.folds and request.split == VAL):
        return request.split
    if data.folds:
        raise DataError(
            f"the trials of sweep {source.name!r} were trained in {len(data.folds)} folds, and "
            "their models predict together: each has seen most images outside test, so only a "
            "test split can judge them (--force cannot change that), and the data has none. Run "
            "a new sweep with one: --set data.test_fraction=0.2, or a folder of test images. The "
            "cross-validated figures, val/..., are in the leaderboard."
        )
    if request.force:
        return VAL
    raise DataError(
        f"the data of sweep {source.name!r} has no test split (it has: "
        f"{', '.join(data.splits)}). --split val, or --force, evaluates on the validation split; "
        "the sweep chose by it, so the metrics are too optimistic, and the model card says so. "
        "Better: give the data a test split and run a new sweep."
    )


def _require_val(source: SourceSweep, data: Dataset, request: Request) -> None:
    """DataError where the split that `--with-val` adds to train is missing."""
    if request.final is None or not request.final.with_val:
        return
    if data.folds:
        raise DataError(
            f"--with-val: the data of sweep {source.name!r} is divided into {len(data.folds)} "
            "folds and has no val split: together their models have seen all images outside test "
            "already. Leave --with-val out."
        )
    if VAL not in data.splits:
        raise DataError(
            f"--with-val: the data of sweep {source.name!r} has no val split (it has: "
            f"{', '.join(data.splits)}). Leave --with-val out."
        )


def _require_unseen_val(source: SourceSweep, data: Dataset, request: Request) -> None:
    """DataError where the models have seen what `--postprocess` would be chosen on."""
    seen = request.final is not None and request.final.with_val
    if request.postprocess and (data.folds or seen or VAL not in data.splits):
        why = "--with-val trains on it" if seen else "its models have seen all images but test"
        raise DataError(
            f"--postprocess chooses on the validation split of sweep {source.name!r}, and {why}. "
            "Leave it out."
        )


def _misfit(folder: Path, data: Dataset) -> str:
    """Why the model in `folder` cannot be evaluated on `data`; empty where it can."""
    spec = read_spec(folder)
    if spec.class_names != data.class_names:
        return (
            f"has the classes {', '.join(spec.class_names)}, and this data "
            f"{', '.join(data.class_names)}"
        )
    return ""


# Warnings


def _forced_split_warnings(split: str, request: Request) -> Iterator[str]:
    if split != request.split:
        yield "The data has no test split: forced to evaluate on the validation split."


def _source_warnings(source: SourceSweep) -> Iterator[str]:
    tags = source.run.data.tags
    if source.run.info.status != "FINISHED":
        yield f"Sweep {source.name} has not finished."
    if CONFIRMS in tags:
        yield f"Sweep {source.name} only trained trials of {tags[CONFIRMS]} again."
    if FINAL_OF in tags:
        yield f"Sweep {source.name} is the final training of a trial of {tags[FINAL_OF]}."


def _choice_warnings(best: Candidate, chosen: Candidate, request: Request) -> Iterator[str]:
    if best.score > chosen.score:
        why = "the best that kept its weights"
        if request.run_id is not None:
            why = "the one asked for by its run"
        elif request.max_latency_ms is not None:
            why = f"the best that takes at most {request.max_latency_ms:g} ms"
        yield (
            f"Trial {best.trial} scored higher in the sweep ({best.score:.4f} against "
            f"{chosen.score:.4f}); trial {chosen.trial} is {why}."
        )


def _front_warnings(
    source: SourceSweep, trials: Sequence[Candidate], request: Request
) -> Iterator[str]:
    """Where there are several objectives, what else could be chosen."""
    goals = source.goals
    if not goals.several or request.run_id is not None:
        return
    points = [[trial.run.data.metrics.get(n, math.nan) for n in goals.columns] for trial in trials]
    named = [
        f"trial {trials[index].trial} ("
        + ", ".join(
            f"{each.metric} {value:.4g}"
            for each, value in zip(goals.objectives, points[index], strict=True)
        )
        + ")"
        for index in goals.front(points)
    ]
    yield (
        f"The sweep has several objectives; on its Pareto front: {'; '.join(named)}. Without "
        "--max-latency-ms or --run the best in the first objective is taken."
    )


def _few_images_warnings(data: Dataset, split: str) -> Iterator[str]:
    images = len(data[split])
    if images < _FEW_IMAGES:
        yield (
            f"The {split} split has {images} images: intervals are wide, and small "
            "differences cannot be detected."
        )


def _baseline_warnings(
    baseline: Baseline, chosen: Candidate, data: Dataset, split: str
) -> Iterator[str]:
    folder, present = baseline.folder, baseline.version
    if folder and read_description(folder)["data_fingerprint"] != data.fingerprint:
        yield (
            "The current champion was trained on other data, which may include images "
            f"of this {split} split."
        )
    if present and present.run_id == chosen.run_id:
        yield f"Trial {chosen.trial} is the current champion, version {present.version}."
