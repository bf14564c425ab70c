"""`unetexp evaluate`: a finished model's figures on a data set, and how far they can be trusted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import open_for_model, source_of
from unetexp.cli.options import Device, SetData, TrackingUri
from unetexp.compute.device import limit_threads, pick_device
from unetexp.data import Dataset
from unetexp.errors import ConfigError, DataError
from unetexp.inference.evaluation import (
    ALL,
    SplitEvaluation,
    as_the_model_takes_it,
    assess,
    recorded_train_config,
    samples_of,
)
from unetexp.loading import LoadedModel, load
from unetexp.metrics.bootstrap import Interval, score_intervals
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
    set_: SetData = None,
    without_channel: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Also the figures with this channel, counted from 1, set to its mean, as if it "
            "were missing. Repeatable: all that are named are missing together.",
        ),
    ] = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
) -> None:
    """The metrics of a model on a data set, as training's validation computes them.

    With 95 % intervals over the images, a row per class, and the images with the worst scores.
    """
    with exit_codes():
        place = out or Path("evaluations") / time.strftime("%Y%m%d-%H%M%S")
        chosen = pick_device(device)
        changes = parse_assignments(set_ or [])
        limit_threads()
        absolute(tracking_uri)
        loaded = load(model, device=device, tracking_uri=tracking_uri)
        without = tuple(sorted({*(without_channel or ())}))
        results = _evaluated(model, loaded, data, changes, split, place, worst, chosen, without)
        if format_ is OutputFormat.json:
            typer.echo(json.dumps(results, indent=2))
        else:
            _print(results, place)


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
    with aside.status(f"{len(samples)} images"):
        found = assess(loaded.module(), spec, dataset, part, device, train=train, worst=worst)
    if loaded.description is not None and loaded.description.preprocessing:
        del found.metrics["loss"]  # of label maps, not of logits
    results = results_of(found, model, dataset, known)
    if without:
        missing = [channel - 1 for channel in without]
        with aside.status(f"{len(samples)} images without {_channels(without)}"):
            partial = assess(
                loaded.module(),
                spec,
                dataset,
                part,
                device,
                train=train,
                worst=0,
                without=missing,
            )
        results["without_channels"] = _partial_results(partial, without)
    _write(results, place)
    if found.worst:
        seen = as_the_model_takes_it(dataset, spec)
        picture = worst_grid(seen, found.worst, found.image_miou.tolist(), samples)
        picture.save(place / PICTURE)
    return results


def results_of(found: SplitEvaluation, model: str, data: Dataset, known: bool) -> dict[str, Any]:
    """Everything that was found, JSON-safe: what is undefined is null."""
    intervals = score_intervals(found.matrices)
    confusion = found.matrices.sum(axis=0)
    classes = [
        {
            "class": name,
            "iou": _with_interval(intervals[f"iou/{index}"], found.metrics[f"iou/{name}"]),
            "dice": _number(found.metrics[f"dice/{name}"]),
            "true_pixels": int(confusion[index].sum()),
            "predicted_pixels": int(confusion[:, index].sum()),
        }
        for index, name in enumerate(found.class_names)
    ]
    names = [*found.image_names]
    return {
        "model": model,
        "split": found.split,
        "images": len(names),
        "data": {"fingerprint": data.fingerprint, "same_as_in_training": known},
        "figures": {name: _number(value) for name, value in found.metrics.items()},
        "summary": {
            name: _with_interval(intervals[name], found.metrics[name])
            for name in ("miou", "dice", "pixel_accuracy")
        },
        "classes": classes,
        "worst": [
            {"image": names[index], "miou": _number(found.image_miou[index])}
            for index in found.worst
        ],
        "image_miou": [
            {"image": name, "miou": _number(value)}
            for name, value in zip(names, found.image_miou, strict=True)
        ],
    }


def _partial_results(found: SplitEvaluation, without: tuple[int, ...]) -> dict[str, Any]:
    """What was found with channels missing, in the form of the whole results."""
    intervals = score_intervals(found.matrices)
    return {
        "channels": list(without),
        "figures": {name: _number(value) for name, value in found.metrics.items()},
        "summary": {
            name: _with_interval(intervals[name], found.metrics[name])
            for name in ("miou", "dice", "pixel_accuracy")
        },
    }


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


def _channels(numbers: list[int] | tuple[int, ...]) -> str:
    return f"channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


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


def _with_interval(interval: Interval, value: float) -> dict[str, float | None]:
    low, high = _number(interval.low), _number(interval.high)
    return {"value": _number(value), "low": low, "high": high}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _write(results: Mapping[str, Any], place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {place}: the results cannot be written there: {error}") from None


def _print(results: Mapping[str, Any], place: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    images = "1 image" if results["images"] == 1 else f"{results['images']} images"
    partial = results.get("without_channels", {})
    columns = ["without"] if partial else []
    told = f"; without: with {_channels(partial['channels'])} set to the mean" if partial else ""
    console.print(f"{results['split']}, {images}{told}", markup=False)
    figures = partial.get("figures", {})
    table = Table("", "value", *columns, "95 % interval", "Dice", "true pixels", "predicted")
    for name, interval in results["summary"].items():
        beside = [_shown(figures[name])] if partial else []
        table.add_row(name, _shown(interval["value"]), *beside, _range(interval))
    table.add_section()
    for row in results["classes"]:
        table.add_row(
            f"iou/{row['class']}",
            _shown(row["iou"]["value"]),
            *([_shown(figures[f"iou/{row['class']}"])] if partial else []),
            _range(row["iou"]),
            _shown(row["dice"]),
            f"{row['true_pixels']:,}",
            f"{row['predicted_pixels']:,}",
        )
    console.print(table)
    if results["worst"]:
        console.print("Worst images, by their own mIoU")
    for row in results["worst"]:
        console.print(f"  {_shown(row['miou'])}  {row['image']}", markup=False)
    console.print(f"results in {place}", markup=False)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _range(interval: Mapping[str, float | None]) -> str:
    low, high = interval["low"], interval["high"]
    return "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"
