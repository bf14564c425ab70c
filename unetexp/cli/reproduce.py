"""`unetexp reproduce`: is a recorded run what its configuration and data give?"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.open_data import open_aloud, source_of
from unetexp.cli.options import TrackingUri
from unetexp.compute.device import limit_threads, pick_device
from unetexp.data import DataSource
from unetexp.errors import ConfigError, UnetexpError
from unetexp.models.weights.resolution import resolve_weights
from unetexp.tracking.recorded_run import History, RecordedRun, run_record
from unetexp.tracking.reproduce import (
    TOLERANCE,
    TOLERATED,
    config_again,
    device_of,
    differences,
    require_same_data,
    train_again,
    why_not_to_the_bit,
)
from unetexp.training.experiment import BEST, has_model
from unetexp.training.loop import EpochReport

_SHOWN = 5


def reproduce(
    run_id: Annotated[str, typer.Argument(help="The id of a trial's run in MLflow.")],
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="The run's data, if it has moved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the new model.", show_default="experiments/TIME"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device: auto, cpu or cuda.", show_default="the run's")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Train a run again from what MLflow holds, and say whether the figures agree.

    To the bit on the same CPU, threads and versions; within a tolerance elsewhere. Exits with 1
    where they do not agree.
    """
    with exit_codes():
        limit_threads()
        asked = None if device is None else pick_device(device)
        record = run_record(run_id, tracking_uri)
        chosen = asked or pick_device(device_of(record))
        folder = out or Path("experiments") / time.strftime("%Y%m%d-%H%M%S")
        if has_model(folder) and not any(folder.glob("epoch-*")):
            raise ConfigError(
                f"--out {folder}: a finished experiment is there. Choose another folder."
            )
        _reproduce(record, data, folder, chosen)


def _reproduce(record: RecordedRun, place: str | None, folder: Path, device: torch.device) -> None:
    console = Console(highlight=False, soft_wrap=True)
    config = config_again(record, device)
    source: DataSource = config.data if place is None else source_of(place, config.data)
    data = open_aloud(source, console, to_train=False)  # as the run took it
    require_same_data(record, data)
    resolve_weights(config.encoder, in_channels=data.channels)
    reasons = why_not_to_the_bit(record, config, device)
    part = "" if record.epochs == config.epochs else f" of {config.epochs}"
    console.print(
        f"run {record.name}, {record.epochs}{part} epochs, ended as {record.stop_reason}; "
        + ("compared to the bit" if not reasons else f"compared to within {TOLERANCE:g}"),
        markup=False,
    )
    for reason in reasons:
        console.print(f"not to the bit: {reason}", style="yellow", markup=False)
    score = record.score
    recorded = record.history[score]

    def tell(report: EpochReport) -> None:
        now, then = report.metrics[score], recorded.get(report.epoch, math.nan)
        verdict = "the same" if now == then else f"differs by {abs(now - then):.2g}"
        console.print(
            f"epoch {report.epoch}/{record.epochs}  {score} {now:.6f}  recorded {then:.6f}  "
            f"{verdict}"
        )

    again = config.model_copy(update={"data": source})  # it may lie elsewhere now
    found = train_again(record, again, data, folder, device, tell)
    _judge(record, found, exact=not reasons, console=console)
    console.print(f"model in {folder / BEST}", markup=False)


def _judge(record: RecordedRun, found: History, *, exact: bool, console: Console) -> None:
    """Say how it came out; UnetexpError where the figures do not agree."""
    off = differences(record.history, found, tolerance=None if exact else TOLERANCE)
    if off:
        listed = "".join(f"\n  {difference.describe()}" for difference in off[:_SHOWN])
        more = f"\n  and {len(off) - _SHOWN} more" if len(off) > _SHOWN else ""
        how = "to the bit" if exact else f"within {TOLERANCE:g}"
        raise UnetexpError(f"the figures do not agree {how}:{listed}{more}")
    if exact:
        console.print(
            f"reproduced: all {len(record.history)} figures of all {record.epochs} epochs are "
            "the same, to the bit"
        )
    else:
        console.print(
            f"reproduced: {', '.join(TOLERATED)} of all {record.epochs} epochs agree within "
            f"{TOLERANCE:g}"
        )
