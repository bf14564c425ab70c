"""`unetexp export`: a trained model as a file for another runtime, proved on real images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unetexp.cli.evaluate import SplitName
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import changed, open_for_model, source_of
from unetexp.cli.options import SetData, TrackingUri
from unetexp.compute.device import limit_threads
from unetexp.data import Dataset
from unetexp.errors import DataError, UnetexpError
from unetexp.export.calibration import IMAGES
from unetexp.export.card import HEADS, measured_on, rows
from unetexp.export.exporting import MAX_DROP, Exported, Request
from unetexp.export.exporting import export as write_export
from unetexp.inference.evaluation import train_config
from unetexp.loading import model_folder
from unetexp.models.saved_model import read_description, read_spec
from unetexp.system.shell import installed
from unetexp.tracking.export_record import origin_of, record_export
from unetexp.tracking.uri import absolute
from unetexp.training.config import parse_assignments


class Target(StrEnum):
    """The runtimes that files are written for."""

    onnx = "onnx"
    openvino = "openvino"
    torchscript = "torchscript"
    pt2 = "pt2"
    tensorrt = "tensorrt"


class InPrecision(StrEnum):
    """The numbers that a file computes with."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder, a run's id, or models:/NAME@ALIAS or models:/NAME/VERSION."
        ),
    ],
    to: Annotated[Target, typer.Option("--to", help="The runtime that the file is for.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The file, and FILE.md with its figures; OpenVINO's is an .xml."
        ),
    ],
    precision: Annotated[
        InPrecision,
        typer.Option(
            help="The numbers that it computes with; int8 is calibrated with training images."
        ),
    ] = InPrecision.fp32,
    preprocessing: Annotated[
        bool,
        typer.Option(
            "--preprocessing",
            help="Raw images (N, H, W, C) in and label maps (N, H, W) out, instead of normalised "
            "images (N, C, H, W) in and logits out.",
        ),
    ] = False,
    max_drop: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            metavar="POINTS",
            help="Points of mIoU (hundredths) that it may lose; a worse file is not kept.",
        ),
    ] = MAX_DROP,
    calibration_images: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Training images that int8 is calibrated with, evenly from all; more take longer.",
        ),
    ] = IMAGES,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Images and masks to prove it on, and to calibrate int8 with.",
            show_default="those that the model was trained with",
        ),
    ] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(
            help="Part of the data that it is proved on.",
            show_default="val, or test where all the rest was trained on",
        ),
    ] = None,
    set_: SetData = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a model for another runtime, and prove that it says the same there.

    The file is loaded in that runtime and evaluated beside the PyTorch model: mIoU, equal pixels,
    latency. A file that loses more than --max-drop is not kept (exit code 3).
    """
    with exit_codes():
        changes = parse_assignments(set_ or [])
        limit_threads()
        absolute(tracking_uri)
        request = Request(
            to.value, out, precision.value, preprocessing, max_drop, calibration_images
        )
        request.writer()  # first, because it takes no time
        folder = model_folder(model, tracking_uri)
        origin = origin_of(model, tracking_uri)
        spec, train = read_spec(folder), train_config(folder)
        aside = Console(stderr=True, highlight=False, soft_wrap=True)
        if data is None:
            source = changed(train.data, changes)
        else:
            source = source_of(data, train.data, changes)
        dataset = open_for_model(source, spec, aside, changes)
        part = split.value if split else _default_split(dataset)
        if read_description(folder).get("data_fingerprint") != dataset.fingerprint:
            note = "note: this is not the data that the model was trained with."
            aside.print(note, style="yellow", markup=False)
        with aside.status(f"{to} {precision}"):
            done = write_export(folder, request.of(origin.run_id, origin.commit), dataset, part)
        _print(done)
        if origin.run_id is not None:
            _record(done, origin.run_id, tracking_uri, aside)


def _default_split(data: Dataset) -> str:
    if data.folds:
        if "test" in data.splits:
            return "test"
        raise DataError(
            "this model is the models of all folds, which have seen all images of this data. Give "
            "--data other images with masks, and --split all."
        )
    return "val"


def _print(done: Exported) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table(*HEADS)
    for cells in rows(done.proof):
        table.add_row(*cells)
    console.print(table)
    console.print(f"measured on {measured_on(done.proof)}", markup=False)
    console.print(
        f"written: {done.path} ({done.size_mb:.1f} MB), figures in {done.card}", markup=False
    )
    predict = installed("unetexp", "predict", str(done.path), "IMAGES", "--out", "labels")
    console.print(f"to use it: {predict}", markup=False)
    console.print(f"to serve it: {installed('unetexp', 'serve', str(done.path))}", markup=False)


def _record(done: Exported, run_id: str, tracking_uri: str | None, aside: Console) -> None:
    """Keep the proof in the model's run; the file is in its place whether that works or not."""
    name = f"{done.description.format}-{done.description.precision}"
    try:
        record_export(
            run_id, name, done.proof.metrics(), done.card.read_text("utf-8"), tracking_uri
        )
    except UnetexpError as error:
        aside.print(f"note: not recorded in MLflow: {error}", style="yellow", markup=False)
