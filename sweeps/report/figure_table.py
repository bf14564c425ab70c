"""The figures of outlines, objects and probabilities of the best trials, as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sweeps.report.sweep_data import SweepData
from sweeps.text import count
from sweeps.tracking.store import TrackingStore
from unetexp.inference.validation_figures import FIGURES
from unetexp.metrics.figures.families import FAMILIES, Family, family_of

_TRIALS, _CLASSES = 3, 6
_BESIDE = ("missed_images", "false_images")  # shown beside the means of images
_COUNTED = {"missed_images": "missed", "false_images": "where there is none"}
_WITHOUT_UNIT = {"brier": "-"}
_OVER = {"set": "the set", "mean of images": "mean of images"}

Figures = Mapping[str, Mapping[str, Any]]  # as in figures.json: name -> value, low, high, unit, ...


@dataclass(frozen=True)
class Cell:
    """One figure of one trial, as text; what there is not is empty."""

    value: str
    interval: str = ""
    misses: str = ""


@dataclass(frozen=True)
class Row:
    """One figure of every trial."""

    title: str
    unit: str
    over: str
    cells: list[Cell]


@dataclass(frozen=True)
class Part:
    """The figures of a class, or of all of them."""

    title: str
    rows: list[Row]


@dataclass(frozen=True)
class FigureTable:
    """A column a trial, the best first."""

    introduction: str
    headings: list[str]
    parts: list[Part]
    notes: list[str]


def figure_table(store: TrackingStore, sweep_data: SweepData) -> FigureTable | None:
    """The figures of the best trials that have some of equal settings; None without any."""
    full = sweep_data.scored[sweep_data.scored["full_budget"]]
    found: list[tuple[str, dict[str, Any]]] = []
    for _, trial in full.head(_TRIALS).iterrows():
        record = _record(store, trial["run_id"])
        if record and (not found or record["settings"] == found[0][1]["settings"]):
            found.append((str(trial["trial"]), record))
    if not found:
        return None
    records = [record for _, record in found]
    figures = [record["figures"] for record in records]
    classes = _classes(figures[0])
    return FigureTable(
        introduction=_introduction(records[0], sweep_data.goals.keeps_last),
        headings=[f"trial {trial}, {_images(record)}" for trial, record in found],
        parts=[
            _part("All classes", "", figures),
            *(_part(name, f"/{name}", figures) for name in classes[:_CLASSES]),
        ],
        notes=_notes(records[0]["settings"], classes),
    )


def _record(store: TrackingStore, run_id: str) -> dict[str, Any] | None:
    if FIGURES not in {entry.path for entry in store.client.list_artifacts(run_id)}:
        return None
    with TemporaryDirectory() as scratch:
        path = Path(store.client.download_artifacts(run_id, FIGURES, scratch))
        record = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(record, dict)
    return record


def _classes(figures: Figures) -> list[str]:
    """The classes that have figures, the one with the lowest IoU first."""
    prefix = "iou/"
    names = [name.removeprefix(prefix) for name in figures if name.startswith(prefix)]
    return sorted(names, key=lambda name: figures[prefix + name]["value"] or 0)


def _introduction(record: Mapping[str, Any], keeps_last: bool) -> str:
    if keeps_last:
        return (
            "Of each trial's last epoch, on validation images, which these trials were trained "
            "on: the figures are too good."
        )
    whole = record["images"] == record["of"]
    spread = "" if whole else "evenly spread "
    return (
        f"Of each trial's best epoch, on {spread}validation images, by which the trials were "
        "chosen: a promotion computes them on the test split. Beside a value is its 95 % interval, "
        "a bootstrap over images."
    )


def _images(record: Mapping[str, Any]) -> str:
    used, there_are = record["images"], record["of"]
    return count(used, "image") if used == there_are else f"{used} of {count(there_are, 'image')}"


def _part(title: str, suffix: str, figures: Sequence[Figures]) -> Part:
    """A row for each family that has a figure with this suffix, `/CLASS` or nothing."""
    rows = [
        _row(family, f"{family.name}{suffix}", figures)
        for family in FAMILIES.values()
        if family.name not in _BESIDE and f"{family.name}{suffix}" in figures[0]
    ]
    return Part(title, rows)


def _row(family: Family, name: str, figures: Sequence[Figures]) -> Row:
    unit = figures[0][name]["unit"]
    over = _OVER[family.aggregation]
    if family.mean and "/" not in name:
        over += ", mean of classes"
    return Row(
        title=f"{family.title}{'' if family.higher_is_better else ', lower is better'}",
        unit=unit if unit != "1" else _WITHOUT_UNIT.get(family.name, "share"),
        over=over,
        cells=[_cell(family, name, own) for own in figures],
    )


def _cell(family: Family, name: str, figures: Figures) -> Cell:
    row = figures.get(name)
    if row is None or row["value"] is None:
        return Cell("-")
    digits = 2 if family.distance else 3
    interval = ""
    if row["low"] is not None and row["high"] is not None:
        interval = f"{row['low']:.{digits}f} to {row['high']:.{digits}f}"
    misses = _misses(name, figures) if family.aggregation == "mean of images" else ""
    return Cell(f"{row['value']:.{digits}f}", interval, misses)


def _misses(name: str, figures: Figures) -> str:
    """How many images had the worst value, because one of the two masks was empty."""
    class_name = name.partition("/")[2]
    found = []
    for family, words in _COUNTED.items():
        own = [f"{family}/{class_name}"] if class_name else _of_family(family, figures)
        images = sum(figures[each]["value"] or 0 for each in own if each in figures)
        if images:
            found.append(f"{images:.0f} {words}")
    return ", ".join(found)


def _of_family(family: str, figures: Figures) -> list[str]:
    return [name for name in figures if family_of(name).name == family and "/" in name]


def _notes(settings: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    unit = settings["unit"]
    notes = [
        f"Outlines agree up to {settings['tolerance']:g} {unit} (NSD); distances are in {unit}"
        + (", because the data does not know the size of its pixels." if unit == "px" else "."),
        "An image in which a class is missed, or predicted where there is none, has the worst "
        "value: 0, and for HD95 the image's diagonal. An image without the class in truth and "
        "prediction does not count.",
    ]
    rest = len(classes) - _CLASSES
    if rest > 0:
        notes.append(
            f"The {_CLASSES} classes with the lowest IoU are shown; {FIGURES} of each trial's run "
            f"has {rest} more."
        )
    return notes
