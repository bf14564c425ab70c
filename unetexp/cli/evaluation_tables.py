"""What the terminal shows of an evaluation's results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from unetexp.metrics.figures.families import FAMILIES, SIZES

_CLASSES, _GROUPS = 6, 10  # that are shown; the file has all
_ELSEWHERE = {"iou", "dice", "missed_images", "false_images"}
_ELSEWHERE |= {f"object_recall_{size}" for size in SIZES}


def show_results(results: Mapping[str, Any], place: Path) -> None:
    """Print the results, which are in the folder `place`."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(_heading(results), markup=False)
    console.print(_scores(results))
    for title, table in (
        (_figures_title(results), _figures(results)),
        ("Objects by size, in thirds of those of each class", _sizes(results)),
        (_groups_title(results), _groups(results)),
    ):
        if table.row_count:
            console.print(title, markup=False)
            console.print(table)
    if results["worst"]:
        console.print("Worst images, by their own mIoU")
    for row in results["worst"]:
        console.print(f"  {_shown(row['miou'])}  {row['image']}", markup=False)
    console.print(f"results in {place}", markup=False)


def _heading(results: Mapping[str, Any]) -> str:
    channels = results.get("without_channels", {}).get("channels", [])
    told = f"; without: with {named_channels(channels)} set to the mean" if channels else ""
    tuned = results.get("postprocessing", "none")
    told += "" if tuned == "none" else f"; postprocessing: {tuned}"
    return f"{results['split']}, {_images(results['images'])}{told}"


def named_channels(numbers: Sequence[int]) -> str:
    """`channels 2, 3`."""
    return f"channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _scores(results: Mapping[str, Any]) -> Table:
    """The metrics of training's validation."""
    partial = results.get("without_channels", {})
    columns = ["without"] if partial else []
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
    return table


def _figures_title(results: Mapping[str, Any]) -> str:
    settings = results["figure_settings"]
    unit, names = settings["unit"], _class_names(results)
    rest = len(names) - _CLASSES
    more = f"; {rest} more classes are in the file" if rest > 0 else ""
    return (
        f"Figures of outlines, objects and probabilities; outlines agree up to "
        f"{settings['tolerance']:g} {unit}{more}"
    )


def _figures(results: Mapping[str, Any]) -> Table:
    """The other figures, a section for each class, those with the lowest IoU first."""
    table = Table("", "value", "95 % interval", "unit", "over")
    intervals = results["figure_intervals"]
    for name in ("ece", "brier"):
        table.add_row(name, *_cells(intervals[name], "the pixels"))
    for class_name in _class_names(results)[:_CLASSES]:
        table.add_section()
        for family in FAMILIES.values():
            name = f"{family.name}/{class_name}"
            if name not in intervals or family.name in _ELSEWHERE:
                continue
            over = "the set"
            if family.aggregation == "mean of images":
                over = ", ".join(["images", *_misses(intervals, class_name)])
            table.add_row(name, *_cells(intervals[name], over))
    return table


def _class_names(results: Mapping[str, Any]) -> list[str]:
    """The classes with figures of their own, those with the lowest IoU first."""
    prefix, intervals = "iou/", results["figure_intervals"]
    own = [name for name in intervals if name.startswith(prefix)]
    ranked = sorted(own, key=lambda name: intervals[name]["value"] or 0)
    return [name.removeprefix(prefix) for name in ranked]


def _misses(intervals: Mapping[str, Any], class_name: str) -> Iterator[str]:
    """How many images had the worst value because one of the two masks was empty."""
    for family, word in (("missed_images", "missed"), ("false_images", "where there is none")):
        value = intervals[f"{family}/{class_name}"]["value"]
        if value:
            yield f"{value:.0f} {word}"


def _cells(row: Mapping[str, Any], over: str) -> tuple[str, str, str, str]:
    digits = 4 if row["unit"] == "1" else 2
    unit = "" if row["unit"] == "1" else row["unit"]
    return _shown(row["value"], digits), _range(row, digits), unit, over


def _sizes(results: Mapping[str, Any]) -> Table:
    table = Table("class", "size", "up to", "objects", "found", "95 % interval", "pixels found")
    for row in results["by_size"]:
        if row["class"] in _class_names(results)[:_CLASSES]:
            table.add_row(
                row["class"],
                row["size"],
                f"{row['largest']:,.4g} {row['unit']}",
                f"{row['objects']:,}",
                _shown(row["found"]["value"]),
                _range(row["found"]),
                _shown(row["pixels_found"]["value"]),
            )
    return table


def _groups_title(results: Mapping[str, Any]) -> str:
    rest = len(results["by_group"]) - _GROUPS
    return "Groups, the worst first" + (f"; {rest} more are in the file" if rest > 0 else "")


def _groups(results: Mapping[str, Any]) -> Table:
    unit = results["figure_settings"]["unit"]
    table = Table("group", "images", "mIoU", "95 % interval", "NSD", f"HD95, {unit}")
    ranked = sorted(results["by_group"], key=lambda row: row["miou"]["value"] or 0)
    for row in ranked[:_GROUPS]:
        table.add_row(
            row["group"],
            str(row["images"]),
            _shown(row["miou"]["value"]),
            _range(row["miou"]),
            _shown(row["figures"]["nsd"]["value"]),
            _shown(row["figures"]["hd95"]["value"], 2),
        )
    return table


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _shown(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(interval: Mapping[str, float | None], digits: int = 4) -> str:
    low, high = interval["low"], interval["high"]
    if low is None or high is None:
        return "-"
    return f"{low:.{digits}f} to {high:.{digits}f}"
