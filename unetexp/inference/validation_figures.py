"""The figures of an experiment's best model on the images that validated it.

They take longer than the metrics of an epoch: they are computed once, at the end of training, on a
bounded number of images, which are the same for all experiments on the same data.

I images of a split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset, Samples
from unetexp.data.decoded.chosen import ChosenSamples
from unetexp.data.decoded.sample import original_shapes
from unetexp.data.folded import rounds
from unetexp.errors import UnetexpError
from unetexp.inference.evaluation_results import intervals_of, settings_of
from unetexp.metrics.figures.collector import FigureCollector
from unetexp.metrics.figures.families import is_of_every_epoch
from unetexp.metrics.figures.settings import Images, ValidationFigures
from unetexp.models.ensemble import Ensemble
from unetexp.models.saved_model import load, read_description
from unetexp.training.config import TrainConfig
from unetexp.training.experiment import BEST
from unetexp.training.losses import loss_for
from unetexp.training.pictures import fixed_images
from unetexp.training.validation import Observer, evaluate

FIGURES = "figures.json"  # in best/
SAMPLE_PIXELS = 2**25  # of `auto`: 128 images of 512 x 512


def write_figures(
    folder: Path,
    config: TrainConfig,
    data: Dataset,
    device: torch.device,
    compute: ComputeSettings,
    wanted: ValidationFigures,
) -> list[str]:
    """Compute the figures of the best model of the run in `folder`, into best/figures.json.

    Returns what the user should know.

    The file has the `epoch` of the model, the number of `images` and how many there are `of` them,
    the `settings`, and `figures`: by name the value, the bounds of its interval, unit and
    aggregation. Of folds each image is labelled by the model that has not seen it.
    """
    chosen = chosen_images(data["val"], wanted.images)
    names = [data["val"].names[index] for index in chosen]
    try:
        spacings, notes = config.data.spacings_mm(names), []
    except (UnetexpError, OSError) as error:  # a machine that has the cache, but not the files
        spacings, notes = None, [f"figures are in pixels, whose size cannot be read: {error}"]
    collector = FigureCollector(data.class_names, names, wanted.settings, spacings_mm=spacings)
    _collect(folder / BEST, config, data, chosen, device, compute, collector)
    figures = collector.figures()
    found = {
        "epoch": read_description(folder / BEST)["epoch"],
        "images": len(chosen),
        "of": len(data["val"]),
        "settings": settings_of(figures),
        "figures": intervals_of(figures),
    }
    scratch = folder / BEST / f".{FIGURES}"
    scratch.write_text(json.dumps(found), encoding="utf-8")
    scratch.replace(folder / BEST / FIGURES)
    return notes


def read_figures(folder: Path) -> dict[str, Any] | None:
    """What `write_figures` wrote for the run in `folder`; None where it did not."""
    try:
        found = json.loads((folder / BEST / FIGURES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    assert isinstance(found, dict)
    return found


def tracked(figures: Mapping[str, Any]) -> dict[str, float]:
    """The values by their names in MLflow, such as `val/hd95/lesion`; undefined ones are left out.

    IoU and Dice are not among them: every epoch has those, of all images.
    """
    return {
        f"val/{name}": row["value"]
        for name, row in figures["figures"].items()
        if row["value"] is not None and not is_of_every_epoch(name)
    }


def chosen_images(split: Samples, wanted: Images) -> list[int]:
    """Indices of the images of a split that are measured, evenly spread over it."""
    count = len(split)
    if wanted == "all":
        return list(range(count))
    if wanted != "auto":
        return fixed_images(count, wanted)
    pixels = sum(height * width for height, width in original_shapes(split))
    return fixed_images(count, max(1, SAMPLE_PIXELS * count // pixels))


def _collect(
    best: Path,
    config: TrainConfig,
    data: Dataset,
    chosen: Sequence[int],
    device: torch.device,
    compute: ComputeSettings,
    collector: FigureCollector,
) -> None:
    """Give the chosen images to the collector, each as the model that validated it labels it."""
    model = load(best).to(device).to(memory_format=compute.layout)
    members = list(model.members) if isinstance(model, Ensemble) else [model]
    start = first = 0  # of this fold among all images, and among the chosen ones
    for part, member in zip(rounds(data), members, strict=True):
        end = start + len(part["val"])
        own = [index - start for index in chosen if start <= index < end]
        if own:
            evaluate(
                config,
                part,
                ChosenSamples(part["val"], own),
                member,
                loss_for(config.loss, part),
                worst=0,
                compute=compute,
                observe=_from(first, collector),
            )
        start, first = end, first + len(own)


def _from(first: int, collector: FigureCollector) -> Observer:
    """The collector for a fold, whose images it counts from `first`."""
    return lambda index, *measured: collector(first + index, *measured)
