"""`unetexp tune`: what is done to a model's probabilities and labels, chosen on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unetexp.cli.evaluate import SplitName
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import changed, open_aloud, source_of
from unetexp.cli.options import Device, SetData, TrackingUri
from unetexp.cli.progress import shown_progress
from unetexp.compute.device import limit_threads, pick_device
from unetexp.errors import ConfigError
from unetexp.inference.evaluation import train_config
from unetexp.loading import is_exported_file, model_folder
from unetexp.models.saved_model import CONFIG
from unetexp.system.shell import installed
from unetexp.tracking.uri import absolute
from unetexp.training.config import parse_assignments
from unetexp.tuning.model import tune_model
from unetexp.tuning.stored import DIAGRAM, RECORD, store
from unetexp.tuning.tune import Step, Tuned


def tune(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder, a run's id, or models:/NAME@ALIAS or models:/NAME/VERSION."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Images and masks to tune it on.",
            show_default="those that the model was trained with",
        ),
    ] = None,
    split: Annotated[
        SplitName, typer.Option(help="Part of the data; not the one that it is judged on.")
    ] = SplitName.val,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the tuned model.",
            show_default="the model's own, where MODEL is a folder",
        ),
    ] = None,
    set_: SetData = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
) -> None:
    """Choose temperature, thresholds and smallest areas by what they are worth on validation.

    Nested folds measure each on images that had no say in its choice; what does not help stays
    off. Writes the model with its settings, postprocessing.json (how they were chosen) and
    reliability.png. Prediction, evaluation, export and serving then use them.
    """
    with exit_codes():
        changes = parse_assignments(set_ or [])
        chosen = pick_device(device)
        limit_threads()
        absolute(tracking_uri)
        if is_exported_file(model):
            raise ConfigError(f"{model}: tune the model, then export it: the file keeps it.")
        folder = model_folder(model, tracking_uri)
        place = out or _own_folder(model, folder)
        known = train_config(folder).data
        source = changed(known, changes) if data is None else source_of(data, known, changes)
        source = source.model_copy(update={"resize": None})  # labels are of the images' own size
        console = Console(highlight=False, soft_wrap=True)
        dataset = open_aloud(source, Console(stderr=True, highlight=False, soft_wrap=True))
        with shown_progress(Console(stderr=True), "predicting") as on_progress:
            tuned = tune_model(
                folder,
                dataset,
                split.value,
                chosen,
                lambda done, total: on_progress("predicting", done, total),
            )
        store(folder, place, tuned, split.value, dataset.fingerprint)
        show(tuned, split.value, console)
        console.print(f"written: {place} ({CONFIG}, {RECORD}, {DIAGRAM})", markup=False)
        predict = installed("unetexp", "predict", str(place), "IMAGES", "--out", "labels")
        console.print(f"to use it: {predict}", markup=False)


def show(tuned: Tuned, split: str, console: Console) -> None:
    """Print what each step was worth, and what is kept."""
    if tuned.steps:
        table = Table("", "measured by", "before", "after", "gain (95 %)", "chosen", "kept")
        for step in tuned.steps:
            table.add_row(*_cells(step))
        console.print(table)
    if tuned.calibration:
        before, after = tuned.calibration
        console.print(f"expected calibration error: {before:.4f}, then {after:.4f}")
    console.print(f"postprocessing: {tuned.verdict}", markup=False)
    console.print(
        f"measured on {split}, {tuned.images} images in {tuned.folds} folds, each on images that "
        "had no say in the choice"
    )


def _cells(step: Step) -> tuple[str, ...]:
    gain = step.gain
    return (
        step.name,
        step.measure,
        f"{step.before:.4f}",
        f"{step.after:.4f}",
        f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})",
        step.found,
        "yes" if step.kept else "no",
    )


def _own_folder(model: str, folder: Path) -> Path:
    """Where a model that is a path lies; ConfigError for one that MLflow keeps."""
    if Path(model).expanduser().exists():
        return folder
    raise ConfigError(
        f"{model}: MLflow keeps this model as it is. Give --out DIR for the tuned one, or tune it "
        "as it is promoted: python sweeps/promote.py --postprocess"
    )
