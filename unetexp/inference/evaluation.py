"""Evaluation of a finished model: the metrics of training's validation, and those per image.

I images, K classes, H W image size.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetexp.component import decode
from unetexp.compute.settings import resolved
from unetexp.data import Dataset, Sample, Samples
from unetexp.data.decoded.sample import original_shapes
from unetexp.errors import CheckpointError, ConfigError, DataError, listed
from unetexp.inference.conforming import conform, full_scale
from unetexp.metrics.figures.collector import FigureCollector
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.figures.split import SplitFigures
from unetexp.metrics.surface import Spacing
from unetexp.models.image_spec import ImageSpec
from unetexp.models.saved_model import ModelSpec, read_description
from unetexp.training.config import TrainConfig
from unetexp.training.losses import loss_for
from unetexp.training.validation import WORST, evaluate

ALL = "all"
_CLASSES_NAMED = 10


@dataclass(frozen=True)
class SplitEvaluation:
    """The metrics of a model on a split."""

    split: str
    metrics: dict[str, float]  # miou, dice, pixel_accuracy, iou/<class>, ..., loss
    class_names: tuple[str, ...]
    image_names: tuple[str, ...]
    matrices: NDArray[np.int64]  # (I, K, K), rows are the target
    image_miou: NDArray[np.float64]  # (I,), NaN if all of an image is void
    worst: dict[int, Tensor]  # label maps (H, W) uint8 of the worst images, the worst first
    labels: dict[int, Tensor]  # label maps of the images that were to be kept
    figures: SplitFigures | None = None  # distances, objects, calibration, ..., where asked for

    @property
    def all_metrics(self) -> dict[str, float]:
        """`metrics`, and every figure by its name; the ones that both have are the same."""
        return {**(self.figures.values if self.figures else {}), **self.metrics}


@dataclass(frozen=True)
class ConformedSamples:
    """The samples of several splits in one sequence, each in the form that a model takes."""

    parts: Sequence[Samples]
    spec: ImageSpec

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the conversion of the first image to that form."""
        return conform(self.parts[0][0].image.numpy(), self.spec)[1]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.names)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(shape for part in self.parts for shape in part.shapes)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each image; empty where no image has one."""
        groups = [tuple(getattr(part, "groups", ())) or ("",) * len(part) for part in self.parts]
        joined = tuple(group for part in groups for group in part)
        return joined if any(joined) else ()

    @property
    def original_shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(shape for part in self.parts for shape in original_shapes(part))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Sample:
        ends = list(accumulate(map(len, self.parts)))
        number = bisect.bisect_right(ends, index)
        part = self.parts[number]
        sample = part[index - ends[number] + len(part)]
        image, _ = conform(sample.image.numpy(), self.spec)
        return dataclasses.replace(sample, image=torch.from_numpy(image))


def assess(
    model: nn.Module,
    spec: ImageSpec,
    data: Dataset,
    split: str,
    device: torch.device,
    *,
    train: TrainConfig | None = None,
    worst: int = WORST,
    keep: Sequence[int] = (),
    without: Sequence[int] = (),
    figures: FigureSettings | None = None,
    probabilities: bool = True,
    spacings_mm: Mapping[str, Spacing] | None = None,
) -> SplitEvaluation:
    """Evaluate `model`, which is moved to `device`, on a split of `data` or on `all` of it.

    With the configuration `train` that the model was trained with, the metrics are those that its
    training would have computed; without it, which only a U-Net's spec allows, batches, precision
    and loss are the defaults. The label maps of the images `keep` are kept.
    The channels `without`, counted from 0, are set to their means. Labels and probabilities are
    postprocessed as `spec` says.

    With `figures` there are figures beside the metrics; they take longer than a small model. The
    ones of probabilities are undefined without `probabilities`, where the model gives labels alone.
    `spacings_mm` are those of the images' pixels by name, where they are known: distances are then
    in millimetres. Raises DataError if the data has other classes or no such split.
    """
    config = train
    if config is None:
        assert isinstance(spec, ModelSpec)
        config = TrainConfig(encoder=spec.encoder, decoder=spec.decoder)
    model = model.to(device).to(memory_format=resolved(config, device).layout)
    seen = as_the_model_takes_it(data, spec)
    samples = samples_of(data, split, spec)
    collector = None
    if figures is not None:
        collector = FigureCollector(
            spec.class_names,
            samples.names,
            figures,
            groups=samples.groups,
            spacings_mm=spacings_mm,
            probabilities=probabilities,
        )
    evaluation = evaluate(
        config,
        seen,
        samples,
        model,
        loss_for(config.loss, seen),
        worst=worst,
        keep=keep,
        keep_matrices=True,
        without=without,
        observe=collector,
        postprocessing=spec.postprocessing,
    )
    assert evaluation.matrices is not None
    return SplitEvaluation(
        split=split,
        metrics=evaluation.metrics,
        class_names=spec.class_names,
        image_names=samples.names,
        matrices=evaluation.matrices.numpy(),
        image_miou=evaluation.image_miou.numpy(),
        worst=evaluation.worst,
        labels=evaluation.predictions,
        figures=collector.figures() if collector else None,
    )


def train_config(folder: Path) -> TrainConfig:
    """The configuration that the model in `folder` was trained with.

    Raises CheckpointError if its config.json does not contain it.
    """
    return recorded_train_config(read_description(folder).get("train"), str(folder))


def recorded_train_config(tree: object, where: str) -> TrainConfig:
    """The configuration of training that a model's file holds. As `train_config`."""
    try:
        config: TrainConfig = decode(TrainConfig, tree, f"{where}: train")
    except ConfigError as error:
        raise CheckpointError(f"{error} Was it written by another version?") from None
    return config


def as_the_model_takes_it(data: Dataset, spec: ImageSpec) -> Dataset:
    """`data` with the model's class names, channels and pixel scale; DataError for other classes.

    Given names are compared; a set without classes.txt only needs the same number of classes.
    """
    ours, theirs = spec.class_names, data.class_names
    model_has, data_has = (listed(names, _CLASSES_NAMED) for names in (ours, theirs))
    if len(ours) != len(theirs):
        counted = "" if _named(theirs) else " (counted in the masks, there is no classes.txt)"
        raise DataError(
            f"the data has {len(theirs)} classes{counted}, {data_has}; the model was "
            f"trained for {len(ours)}, {model_has}. If the masks mean the model's classes, "
            "name those in the data's classes.txt, one per line."
            + "".join(f"\n{problem}" for problem in data.problems)
        )
    if ours != theirs and _named(ours) and _named(theirs):
        label = next(k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        order = "The names are the same in another order. " if {*ours} == {*theirs} else ""
        raise DataError(
            f"label {label} is {theirs[label]!r} in the data and {ours[label]!r} in the model. "
            f"{order}The model has {model_has}: change the masks and classes.txt to match."
        )
    return dataclasses.replace(
        data, class_names=ours, channels=spec.in_channels, image_max=_image_max(data, spec)
    )


def samples_of(data: Dataset, split: str, spec: ImageSpec) -> ConformedSamples:
    """The samples of a split, or of `all`, as the model takes them; DataError for no such split."""
    # Data in folds is its own train and val.
    parts = list(dict.fromkeys(data.splits.values())) if split == ALL else [data[split]]
    return ConformedSamples(parts, spec)


def _image_max(data: Dataset, spec: ImageSpec) -> int:
    """The pixel value of `data` that is 1.0 to the model, as in prediction."""
    if data.image_max == spec.image_max:
        return spec.image_max
    return full_scale(data["train"].window(0, 0, 0, 1, 1)[0].itemsize, spec)


def _named(class_names: Sequence[str]) -> bool:
    """Whether the classes have names; otherwise they are called by their index."""
    return list(class_names) != [str(index) for index in range(len(class_names))]
