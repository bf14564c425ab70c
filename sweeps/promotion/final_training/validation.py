"""Finished models on the validation images: each image by a model that was not trained on it.

I images, K classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from unetexp.data import Dataset
from unetexp.data.folded import rounds
from unetexp.inference.evaluation import assess, train_config
from unetexp.metrics.bootstrap import PairedComparison, compare_paired
from unetexp.models.ensemble import Ensemble
from unetexp.models.saved_model import ModelSpec, load, read_spec
from unetexp.models.unet import UNet

_VAL, _DICE, _IOU = "val/", "dice/", "iou/"


@dataclass(frozen=True)
class Validated:
    """A model's score, and its confusion matrices (I, K, K)."""

    score: float
    matrices: NDArray[np.int64]


@dataclass(frozen=True)
class Validation:
    """The validation images, and the metric that models are compared by on them."""

    data: Dataset
    metric: str  # val/miou, val/dice, val/iou/CLASS, ...
    device: torch.device

    def __call__(self, folder: Path) -> Validated:
        """The model in `folder`; of folds each on its own images, with the mean as the score."""
        train, name = train_config(folder), self.metric.removeprefix(_VAL)
        found = [
            assess(model, spec, data, "val", self.device, train=train, worst=0)
            for model, spec, data in self._rounds(load(folder), read_spec(folder))
        ]
        score = statistics.fmean(each.metrics[name] for each in found)
        return Validated(score, np.concatenate([each.matrices for each in found]))

    def compare(self, one: Validated, other: Validated) -> PairedComparison:
        """By how much `one` is better, by a bootstrap over the same images.

        It is over all images together, also where the score is a mean over folds; a class's Dice is
        compared by its IoU, of which it is a rising function.
        """
        return compare_paired(one.matrices, other.matrices, metric=self._compared)

    @cached_property
    def _compared(self) -> str:
        name = self.metric.removeprefix(_VAL)
        for prefix in (_DICE, _IOU):
            if name.startswith(prefix):
                return f"{_IOU}{self.data.class_names.index(name.removeprefix(prefix))}"
        return name

    def _rounds(self, model: UNet, spec: ModelSpec) -> Iterator[tuple[UNet, ModelSpec, Dataset]]:
        """The model of each fold, of several members those of the fold together, and its data."""
        if not self.data.folds:
            yield model, spec, self.data
            return
        alone = spec.model_copy(update={"folds": None})
        for index, data in enumerate(rounds(self.data)):
            yield _of_fold(model, spec, index), alone, data


def _of_fold(model: UNet, spec: ModelSpec, index: int) -> UNet:
    own = cast("Ensemble", model).members
    if not spec.members:
        return cast("UNet", own[index])
    members = [cast("Ensemble", member).members[index] for member in own]
    return Ensemble([cast("UNet", member) for member in members])
