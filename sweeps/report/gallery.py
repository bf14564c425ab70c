"""Images of the best trials: predictions on the same validation images, and the worst ones."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from PIL import Image

from sweeps.report.sweep_data import SweepData
from sweeps.tracking.store import TrackingStore
from unetexp.training.pictures import SheetRow, class_colours, cut_grid

_TRIALS, _JPEG = 4, 85
_SHEETS = ("overlay.png", "worst.png")


@dataclass(frozen=True)
class Column:
    """One trial's images."""

    label: str
    score: float
    full_budget: bool
    fixed: list[SheetRow]
    worst: list[SheetRow]


@dataclass(frozen=True)
class Gallery:
    """The trials that have images, the best first, and the legend of the colours."""

    columns: list[Column]
    legend: list[tuple[str, str]]

    @property
    def common(self) -> list[SheetRow]:
        """The fixed images, from the best trial's sheet."""
        return self.columns[0].fixed if self.columns else []


def gallery(store: TrackingStore, sweep_data: SweepData) -> Gallery:
    """Read the sheets of the best trials; a trial whose sheets are missing is left out."""
    columns = []
    for _, trial in sweep_data.scored.head(_TRIALS).iterrows():
        fixed, worst = _sheets(store, trial["run_id"])
        if fixed or worst:
            columns.append(_column(trial, sweep_data.goals.best, fixed, worst))
    names = sweep_data.data.get("classes") or []
    return Gallery(columns, class_colours(names) if names else [])


def data_uri(picture: Image.Image) -> str:
    """An image as a data URI, for use inside the page."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _column(
    trial: pd.Series, best: str, fixed: Sequence[SheetRow], worst: Sequence[SheetRow]
) -> Column:
    score, full = float(trial[best]), bool(trial["full_budget"])
    return Column(str(trial["trial"]), score, full, list(fixed), list(worst))


def _sheets(store: TrackingStore, run_id: str) -> list[list[SheetRow]]:
    held = {entry.path for entry in store.client.list_artifacts(run_id)}
    found: list[list[SheetRow]] = []
    with TemporaryDirectory() as scratch:
        for name in _SHEETS:
            rows: list[SheetRow] = []
            if name in held:
                path = Path(store.client.download_artifacts(run_id, name, scratch))
                rows = _rows(path)
            found.append(rows)
    return found


def _rows(path: Path) -> list[SheetRow]:
    try:
        with Image.open(path) as sheet:
            return cut_grid(sheet)
    except OSError:
        return []  # a damaged file
