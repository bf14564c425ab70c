"""`unetexp evaluate`: a finished model's figures on a data set, and how far they can be trusted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from unetexp.cli.evaluation_tables import named_channels, show_results
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import open_for_model, source_of
from unetexp.cli.options import Device, Flavor, SetData, TrackingUri
from unetexp.compute.device import limit_threads, pick_device
from unetexp.data import Dataset
from unetexp.errors import ConfigError, DataError
from unetexp.inference.evaluation import (
    ALL,
    as_the_model_takes_it,
    assess,
    recorded_train_config,
    samples_of,
)
from unetexp.inference.evaluation_results import partial_results, results_of
from unetexp.loading import LoadedModel, load
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.postprocessing.settings import Postprocessing
from unetexp.tracking.uri import absolute
from unetexp.training.config import parse_assignments
from unetexp.training.pictures import worst_grid
from unetexp.training.validation import WORST

RESULTS, PICTURE = "evaluation.json", "worst.png"
_MOST_WORST = 100


class OutputFormat(StrEnum):
    """How the results are printed."""

    table = "table"
    json = "json"


class OutlineForm(StrEnum):
    """What distances are measured between."""

    pixels = "pixels"
    contours = "contours"


class SplitName(StrEnum):
    """The part of the data."""

    train = "train"
    val = "val"
    test = "test"
    all = ALL


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder, a run's id, models:/NAME@ALIAS or models:/NAME/VERSION, or an "
            "exported file."
        ),
    ],
    data: Annotated[
        str, typer.Argument(help="A folder of images and masks, or a kind such as mni152.")
    ],
    split: Annotated[
        SplitName | None,
        typer.Option(
            help="Part of the data.", show_default="val, or all where the folder has no split"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the results.", show_default="evaluations/TIME"
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(
            min=0,
            max=_MOST_WORST,
            metavar="N",
            help=f"Worst images that are named and pictured, at most {_MOST_WORST}.",
        ),
    ] = WORST,
    format_: Annotated[
        OutputFormat, typer.Option("--format", help="Form of what is printed.")
    ] = OutputFormat.table,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="N",
            help="Distance up to which outlines agree, for the normalised surface Dice: in "
            "millimetres where the data knows the size of its pixels, else in pixels.",
        ),
    ] = FigureSettings().tolerance,
    outline: Annotated[
        OutlineForm,
        typer.Option(
            help="What distances are measured between: pixels, the outermost ones of a mask, as in "
            "MONAI; contours, lines between pixels weighted by length, as in surface-distance."
        ),
    ] = OutlineForm.pixels,
    set_: SetData = None,
    without_channel: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Also the figures with this channel, counted from 1, set to its mean, as if it "
            "were missing. Repeatable: all that are named are missing together.",
        ),
    ] = None,
    postprocessing: Annotated[
        bool,
        typer.Option(
            help="As the model was tuned (`unetexp tune`), or the most probable class alone."
        ),
    ] = True,
    flavor: Flavor = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
) -> None:
    """The metrics of a model on a data set, as training's validation computes them.

    With 95 % intervals over the images, a row per class, and the images with the worst scores; and
    the figures of outlines, objects and probabilities, also by object size and by group.
    """
    with exit_codes():
        place = out or Path("evaluations") / time.strftime("%Y%m%d-%H%M%S")
        chosen = pick_device(device)
        changes = parse_assignments(set_ or [])
        limit_threads()
        absolute(tracking_uri)
        loaded = load(model, device=device, flavor=flavor, tracking_uri=tracking_uri)
        if not postprocessing:
            loaded.spec = loaded.spec.model_copy(update={"postprocessing": None})
        without = tuple(sorted({*(without_channel or ())}))
        settings = _settings(tolerance, outline)
        results = _evaluated(
            model, loaded, data, changes, split, place, worst, chosen, without, settings
        )
        if format_ is OutputFormat.json:
            typer.echo(json.dumps(results, indent=2))
        else:
            show_results(results, place)


def _settings(tolerance: float, outline: OutlineForm) -> FigureSettings:
    if not FigureSettings.allows("tolerance", tolerance):
        raise ConfigError(f"--tolerance {tolerance:g}: give a number greater than 0.")
    return FigureSettings(tolerance=tolerance, outline=outline.value)


def _evaluated(
    model: str,
    loaded: LoadedModel,
    data: str,
    changes: Mapping[str, Any],
    split: SplitName | None,
    place: Path,
    worst: int,
    device: torch.device,
    without: tuple[int, ...],
    settings: FigureSettings,
) -> dict[str, Any]:
    """The results of the model, which are written into `place`."""
    aside = Console(stderr=True, highlight=False, soft_wrap=True)
    spec, train = loaded.spec, recorded_train_config(loaded.record.get("train"), model)
    _require_channels(without, spec.in_channels)
    source = source_of(data, train.data, changes)
    dataset = open_for_model(source, spec, aside, changes)
    known = loaded.record.get("data_fingerprint") == dataset.fingerprint
    part = split.value if split else _default_split(dataset, known)
    if known and dataset.folds:
        _require_test(part, dataset)
    samples = samples_of(dataset, part, spec)
    for warning in _warnings(part, known, samples.warnings, dataset.val_in_train):
        aside.print(f"note: {warning}", style="yellow", markup=False)
    labels_only = loaded.description is not None and loaded.description.preprocessing
    judged = partial(
        assess,
        loaded.module(),
        spec,
        dataset,
        part,
        device,
        train=train,
        figures=settings,
        probabilities=not labels_only,
        spacings_mm=source.spacings_mm(samples.names),
    )
    with aside.status(f"{len(samples)} images"):
        found = judged(worst=worst)
    if labels_only:
        del found.metrics["loss"]  # of label maps, not of logits
    results = results_of(found, model, dataset, known)
    results["postprocessing"] = (spec.postprocessing or Postprocessing()).describe()
    if without:
        missing = [channel - 1 for channel in without]
        with aside.status(f"{len(samples)} images without {named_channels(without)}"):
            lacking = judged(worst=0, without=missing)
        results["without_channels"] = partial_results(lacking, without)
    _write(results, place)
    if found.worst:
        seen = as_the_model_takes_it(dataset, spec)
        picture = worst_grid(seen, found.worst, found.image_miou.tolist(), samples)
        picture.save(place / PICTURE)
    return results


def _require_channels(without: tuple[int, ...], channels: int) -> None:
    """ConfigError for channels that the model does not have, and for all that it has."""
    for channel in without:
        if not 1 <= channel <= channels:
            raise ConfigError(
                f"--without-channel {channel}: the model takes {channels} channels. Give one from "
                f"1 to {channels}."
            )
    if len(without) == channels:
        raise ConfigError(
            f"--without-channel: all {channels} channels of the model are named, and nothing would "
            "be left to see. Leave one out."
        )


def _require_test(part: str, data: Dataset) -> None:
    """Raise DataError where models of folds would be judged on images that they were trained on."""
    if part != "test":
        have = "--split test" if "test" in data.splits else "images of another folder"
        raise DataError(
            f"--split {part}: this model is {len(data.folds)} models, each trained on all images "
            "outside test but its fold, and together they have seen them all: the figures would "
            "flatter it. Its cross-validated figures are in metrics.json beside it, as val/... . "
            f"Evaluate {have}."
        )


def _default_split(data: Dataset, known: bool) -> str:
    """Validation's; all of a folder that was split by a seed which the model does not know.

    Test, where the model, or its folds together, have seen all the rest.
    """
    if known and (data.folds or data.val_in_train) and "test" in data.splits:
        return "test"
    return "val" if known or data.split_record.get("method") != "seeded" else ALL


def _warnings(split: str, known: bool, warnings: tuple[str, ...], val_in_train: bool) -> list[str]:
    found = [f"The first image {warning}." for warning in warnings]
    if not known:
        found.append(
            "This is not the data that the model was trained with: its figures are not those of "
            "training."
        )
    elif split in ("train", ALL) or (split == "val" and val_in_train):
        found.append("The model was trained on these images: the figures flatter it.")
    return found


def _write(results: Mapping[str, Any], place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {place}: the results cannot be written there: {error}") from None
