"""The basis of a promotion: the models on one split, their comparison, the gates' verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sweeps.promotion.candidates import Candidate, SourceSweep
from sweeps.promotion.confirmation.outcome import Confirmation
from sweeps.promotion.exports.judged import JudgedExport
from sweeps.promotion.final_training.outcome import FinalTraining
from sweeps.promotion.gates import Measures, Verdict
from sweeps.tracking.store import TrackingStore
from unetexp.data import Dataset, DataSource, open_dataset
from unetexp.inference.evaluation import SplitEvaluation, assess, train_config
from unetexp.metrics.bootstrap import Interval, PairedComparison, score_intervals
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.figures.split import SplitFigures
from unetexp.metrics.latency import latency_ms
from unetexp.metrics.surface import Spacing
from unetexp.models.saved_model import (
    WEIGHTS,
    ModelSpec,
    load,
    parameter_count,
    read_description,
    read_spec,
)
from unetexp.runtimes.flavors import PYTORCH
from unetexp.tuning.tune import Tuned

TEST, VAL = "test", "val"
_USUAL = FigureSettings()
_USES = "test_split.uses."  # plus the fingerprint: a tag of the experiment with the number of uses


@dataclass(frozen=True)
class ModelEvaluation:
    """A model evaluated on the split that the gates use."""

    title: str  # trial 0003; the champion, version 2
    run_id: str
    folder: Path
    spec: ModelSpec
    description: dict[str, Any]  # the config.json beside the weights
    parameters: int
    assessment: SplitEvaluation
    intervals: Mapping[str, Interval]  # miou, dice, pixel_accuracy, iou/<class>
    measures: Measures
    val_miou: float | None = None  # in its sweep; the sweep's score, where that is another metric

    @property
    def miou(self) -> float:
        return self.assessment.metrics["miou"]

    @property
    def figures(self) -> SplitFigures:
        """The figures of outlines, objects and probabilities."""
        assert self.assessment.figures is not None
        return self.assessment.figures


def at_working_size(data: Dataset, source: DataSource, spec: ModelSpec) -> Dataset:
    """`data`, opened from `source`, at the working size that a model was trained at."""
    if data.resize == spec.resize:
        return data
    return open_dataset(source.model_copy(update={"resize": spec.resize}), to_train=False)


def evaluate_model(
    title: str,
    run_id: str,
    folder: Path,
    data: Dataset,
    split: str,
    device: torch.device,
    val_miou: float | None = None,
    *,
    settings: FigureSettings = _USUAL,
    spacings_mm: Mapping[str, Spacing] | None = None,
) -> ModelEvaluation:
    """Evaluate and time the model in `folder`. Raises CheckpointError for a damaged one.

    `settings` and `spacings_mm` are those of the figures, as in `assess`.
    """
    model, spec = load(folder).to(device), read_spec(folder)
    assessment = assess(
        model,
        spec,
        data,
        split,
        device,
        train=train_config(folder),
        figures=settings,
        spacings_mm=spacings_mm,
    )
    height, width = statistics.mode(data[VAL].shapes)  # as in training
    measures = Measures(
        metrics=assessment.all_metrics,
        latency_ms=latency_ms(model, spec.in_channels, height, width),
        size_mb=(folder / WEIGHTS).stat().st_size / 1e6,
    )
    return ModelEvaluation(
        title=title,
        run_id=run_id,
        folder=folder,
        spec=spec,
        description=read_description(folder),
        parameters=parameter_count(model),
        assessment=assessment,
        intervals=_intervals(assessment),
        measures=measures,
        val_miou=val_miou,
    )


def _intervals(assessment: SplitEvaluation) -> dict[str, Interval]:
    """The 95 % intervals, with class names instead of indices."""
    named = {f"iou/{index}": f"iou/{name}" for index, name in enumerate(assessment.class_names)}
    found = score_intervals(assessment.matrices)
    return {named.get(name, name): interval for name, interval in found.items()}


@dataclass(frozen=True)
class PairedResult:
    """How far the chosen model is ahead of another one on the same images."""

    other: ModelEvaluation
    comparison: PairedComparison

    def describe(self, chosen: str) -> str:
        """The comparison in a sentence."""
        difference, tie = self.comparison.difference, self.comparison.tie
        text = f"{chosen} against {self.other.title}: mIoU {difference.value:+.4f}"
        if math.isnan(difference.low):
            return f"{text} on a single image: too few for an interval"
        text += (
            f" (95 % interval {difference.low:+.4f} to {difference.high:+.4f}), better with "
            f"probability {self.comparison.probability:.3f}"
        )
        return f"{text}: a tie" if tie else text


@dataclass(frozen=True)
class PromotionDecision:
    """A model proposed as the champion, with its comparisons, verdicts and warnings."""

    source: SourceSweep
    data: Dataset
    split: str
    uses: int  # of the test split by promotions, this one included; 0 where it was not used
    trial: Candidate  # the chosen one, or the one whose settings were trained to the end
    asked_for: bool  # chosen by its run's id, not as the sweep's best
    chosen: ModelEvaluation
    others: tuple[ModelEvaluation, ...]  # the sweep's next best
    runner_up: PairedResult | None
    champion: PairedResult | None
    verdicts: tuple[Verdict, ...]
    confirmation: Confirmation | None
    warnings: tuple[str, ...]  # shown beside the metrics
    forced: bool
    max_latency_ms: float | None = None  # what the choice was limited to
    final: FinalTraining | None = None  # of the trial's settings
    exports: tuple[JudgedExport, ...] = ()  # of the chosen model
    tuned: Tuned | None = None  # its postprocessing, where that was asked for

    @property
    def is_final(self) -> bool:
        """Whether the chosen model is of the final training, and not the sweep's own."""
        return self.final is not None and self.final.is_new

    @property
    def flavor(self) -> str:
        """What the registered model is used with: its weights, or one of the exports."""
        return next((each.name for each in self.exports if each.served), PYTORCH)

    @property
    def red(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.red]

    @property
    def images(self) -> int:
        """Number of images in the split."""
        return len(self.data[self.split])

    def describe_uses(self) -> str:
        """How often the split has been used."""
        if self.split != TEST:
            return (
                "Evaluated on the validation split, by which the sweep chose: the metrics are too "
                "optimistic."
            )
        times = "1 time" if self.uses == 1 else f"{self.uses} times"
        return f"This test split has been used {times} by promotions, this one included."


def uses_of_test_split(store: TrackingStore, fingerprint: str) -> int:
    """How often promotions have used the test split of the data with this fingerprint."""
    tags = store.client.get_experiment(store.experiment_id).tags
    return int(tags.get(f"{_USES}{fingerprint}", 0))


def count_use(store: TrackingStore, fingerprint: str) -> int:
    """Count a use of the test split; returns the new number of uses."""
    uses = uses_of_test_split(store, fingerprint) + 1
    store.client.set_experiment_tag(store.experiment_id, f"{_USES}{fingerprint}", str(uses))
    return uses
