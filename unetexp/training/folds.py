"""Cross-validation: k models in lockstep, each validated on the fold that it has not seen.

An epoch of the experiment is one epoch of every model. What is reported is the mean over the
folds, the best epoch is that of the best mean, and a checkpoint holds all models. So early
stopping, resuming and everything else see one experiment.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unetexp.compute.distributed import Ranks
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.data.folded import rounds
from unetexp.data.splits.fold_names import fold_name
from unetexp.models.ensemble import Ensemble
from unetexp.models.weights.provenance import Provenance
from unetexp.training.config import SCORE, SPREAD, TrainConfig
from unetexp.training.loop import EpochReport, fit
from unetexp.training.state import RunRecord, TrainState
from unetexp.training.validation import WORST, Evaluation

_TIMES = "time/"


class FoldedState(RunRecord):
    """The states of k models between two epochs, with the record of their means."""

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        device: torch.device,
        compute: ComputeSettings | None = None,
    ) -> None:
        """The start of a run; the models start from equal weights."""
        super().__init__()
        self.device = device
        self.folds = [TrainState(config, each, device, compute) for each in rounds(data)]

    @property
    def compute(self) -> ComputeSettings:
        """As of each model."""
        return self.folds[0].compute

    @property
    def initial_weights(self) -> Provenance:
        """Where the encoders' weights came from."""
        return self.folds[0].initial_weights

    @property
    def settings(self) -> dict[str, str]:
        """Which settings are proved; those of each model are."""
        return self.folds[0].settings

    @property
    def evaluated_model(self) -> Ensemble:
        """All models as one, which is saved. It is not what was validated: each image outside
        test was seen by all models but one."""
        return Ensemble([state.evaluated_model for state in self.folds])

    def state_dict(self) -> dict[str, Any]:
        """Of the run, with the models' own below `folds`."""
        return {**self.record_dict(), "folds": [state.state_dict() for state in self.folds]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_record(state)
        for own, saved in zip(self.folds, state["folds"], strict=True):
            own.load_state_dict(saved)

    def follow_first(self, ranks: Ranks) -> None:
        """As of one model; the followers' record is that of their first model's epoch."""
        for state in self.folds:
            state.follow_first(ranks)
        self.epoch = self.folds[0].epoch


def fit_folds(
    config: TrainConfig,
    data: Dataset,
    state: FoldedState,
    *,
    workers: int = 0,
    keep_predictions: Sequence[int] = (),
    ranks: Ranks,
    score: str = SCORE,
) -> Iterator[EpochReport]:
    """As `fit`, of one model for each fold; `keep_predictions` are images of the whole `data`.

    The report's evaluation is of all images, each as the model that has not seen it labels it.
    """
    starts = [sum(map(len, data.folds[:index])) for index in range(len(data.folds))]
    fits = [
        fit(
            config,
            each,
            own,
            workers=workers,
            keep_predictions=[i - start for i in keep_predictions if 0 <= i - start < len(fold)],
            ranks=ranks,
            score=score,
        )
        for each, own, fold, start in zip(
            rounds(data), state.folds, data.folds, starts, strict=True
        )
    ]
    for reports in zip(*fits, strict=True):
        state.epoch += 1
        metrics = _over_folds([report.metrics for report in reports])
        improved = state.record(metrics, metrics[score])
        notes = dict.fromkeys(note for report in reports for note in report.notes)
        evaluation = _joined([report.evaluation for report in reports], starts)
        yield EpochReport(state.epoch, metrics, improved, evaluation, tuple(notes))


def _over_folds(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means, the spread of those over all classes, and each fold's own; seconds are added."""
    found = {}
    for name in folds[0]:
        total = math.fsum(metrics[name] for metrics in folds)
        found[name] = total if name.startswith(_TIMES) else total / len(folds)
    for name in folds[0]:
        if name.startswith("val/") and name.count("/") == 1:
            spread = statistics.stdev(metrics[name] for metrics in folds)
            found.setdefault(name + SPREAD, spread)  # a class may have that name
    for index, metrics in enumerate(folds):
        own = {n: value for n, value in metrics.items() if n.startswith(("val/", "train/loss"))}
        found |= {f"{fold_name(index)}/{name}": value for name, value in own.items()}
    return found


def _joined(folds: Sequence[Evaluation], starts: Sequence[int]) -> Evaluation:
    """One evaluation of all folds' images; each fold's are counted from its start."""
    image_miou = torch.cat([fold.image_miou for fold in folds])
    worst = _renumbered([fold.worst for fold in folds], starts)
    lowest = sorted(worst, key=lambda index: float(image_miou[index]))[:WORST]
    names = folds[0].metrics
    return Evaluation(
        metrics={name: statistics.fmean(fold.metrics[name] for fold in folds) for name in names},
        confusion=torch.stack([fold.confusion for fold in folds]).sum(dim=0),
        predictions=_renumbered([fold.predictions for fold in folds], starts),
        image_miou=image_miou,
        worst={index: worst[index] for index in lowest},
    )


def _renumbered(folds: Sequence[Mapping[int, Tensor]], starts: Sequence[int]) -> dict[int, Tensor]:
    return {
        start + index: labels
        for fold, start in zip(folds, starts, strict=True)
        for index, labels in fold.items()
    }
