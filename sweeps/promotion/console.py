"""What the terminal shows of a promotion."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.promotion.confirmation.outcome import Confirmation
from sweeps.promotion.evaluation import PromotionDecision
from sweeps.promotion.final_training.outcome import FinalTraining
from sweeps.promotion.registry import CHAMPION, MODEL, PREVIOUS, RegisteredVersion

_COLOURS = {"green": "green", "red": "red", "skipped": "dim"}


def show_decision(console: Console, decision: PromotionDecision) -> None:
    """Print the candidates, their comparison, and the gates."""
    console.print(
        f"Sweep {decision.source.name}, data {decision.data.fingerprint[:12]}: "
        f"{decision.split} split, {decision.images} images"
    )
    for warning in (*decision.warnings, decision.describe_uses()):
        console.print(f"note: {warning}", style="yellow")
    console.print()
    console.print(_models(decision))
    trial = decision.trial
    chosen = f"chosen by {trial.goals.score} ({trial.score:.4f})"
    if decision.max_latency_ms is not None:
        chosen += f" among those that take at most {decision.max_latency_ms:g} ms"
    if decision.is_final:
        chosen = (
            f"picked by {trial.goals.score} on validation, of what follows from the sweep's best"
        )
    how = "asked for" if decision.asked_for and not decision.is_final else chosen
    console.print(f"* {how}. The {decision.split} split is only used to evaluate, never to choose.")
    console.print()
    for paired in (decision.runner_up, decision.champion):
        if paired is not None:
            console.print(paired.describe(decision.chosen.title))
    console.print()
    console.print(_figures(decision))
    console.print()
    if decision.tuned is not None:
        console.print(f"postprocessing, chosen on val: {decision.tuned.verdict}")
        console.print()
    if decision.exports:
        console.print(_exports(decision))
        console.print(f"models:/{MODEL}@{CHAMPION} would be used with {decision.flavor}.")
        console.print()
    console.print(_gates(decision))
    console.print()


def show_confirmation(console: Console, confirmation: Confirmation) -> None:
    """Print the result of training again with new seeds."""
    console.print()
    for line in confirmation.describe():
        console.print(line)
    console.print()


def show_final(console: Console, final: FinalTraining) -> None:
    """Print what was trained to the end, what was tried, and what validation picked."""
    console.print()
    for line in final.describe():
        console.print(line)
    console.print()


def show_champion(
    console: Console, decision: PromotionDecision, version: str, before: RegisteredVersion | None
) -> None:
    """Print the new champion and the previous one."""
    forced = " (forced, as its model card says)" if decision.forced else ""
    name = f"{MODEL} version {version}, {decision.chosen.title} of sweep {decision.source.name}"
    console.print(f"{CHAMPION}: {_version(before)} -> {name}{forced}", style="green")
    if before is not None:
        console.print(f"{PREVIOUS}: {_version(before)}")


def show_rollback(console: Console, now: str, before: str) -> None:
    """Print the champion after a rollback and the previous one."""
    console.print(f"{CHAMPION}: version {before} -> version {now}", style="green")
    console.print(f"{PREVIOUS}: version {before}")


def _models(decision: PromotionDecision) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    for heading in (
        f"val {decision.trial.goals.label}",
        f"{decision.split} mIoU (95 % interval)",
        "latency",
        "size",
    ):
        table.add_column(heading, justify="right")
    rows = [
        decision.chosen,
        *decision.others,
        *([decision.champion.other] if decision.champion else []),
    ]
    for model in rows:
        mark = " *" if model is decision.chosen else ""
        interval = model.intervals["miou"]
        bounds = "" if math.isnan(interval.low) else f" ({interval.low:.4f} to {interval.high:.4f})"
        table.add_row(
            f"{model.title}{mark}",
            "" if model.val_miou is None else f"{model.val_miou:.4f}",
            f"{interval.value:.4f}{bounds}",
            f"{model.measures.latency_ms:.1f} ms",
            f"{model.measures.size_mb:.1f} MB",
        )
    return table


def _figures(decision: PromotionDecision) -> Table:
    """The chosen model's classes, the one with the lowest IoU first; the card has all figures."""
    figures = decision.chosen.figures
    unit, tolerance = figures.unit, figures.settings.tolerance
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    headings = {
        "iou": "IoU",
        "boundary_iou": "boundary IoU",
        "nsd": f"NSD at {tolerance:g} {unit}",
        "hd95": f"HD95, {unit}",
        "panoptic_quality": "PQ",
    }
    table.add_column(f"class, {decision.chosen.title}", no_wrap=True)
    for heading in (*headings.values(), "images missed"):
        table.add_column(heading, justify="right")
    values = figures.values
    for name in sorted(figures.class_names, key=lambda name: _last(values[f"iou/{name}"])):
        cells = [_shown(values[f"{family}/{name}"]) for family in headings]
        table.add_row(name, *cells, f"{values[f'missed_images/{name}']:.0f}")
    return table


def _exports(decision: PromotionDecision) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("export", no_wrap=True)
    split = decision.exports[0].proof.split
    headings = (f"{decision.split} mIoU", f"points lost on {split}", "pixels equal", "latency")
    for heading in (*headings, "size"):
        table.add_column(heading, justify="right")
    for each in decision.exports:
        table.add_row(
            f"{each.name}{' *' if each.served else ''}",
            f"{each.metrics['miou']:.4f}",
            f"{each.proof.lost_points:.2f}",
            f"{each.proof.equal_pixels:.3%}",
            f"{each.latency_ms:.1f} ms",
            f"{each.exported.size_mb:.1f} MB",
        )
    return table


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _gates(decision: PromotionDecision) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("gate", "allowed", "found", "verdict"):
        table.add_column(heading, overflow="fold")
    for verdict in decision.verdicts:
        light = Text(verdict.light, _COLOURS[verdict.light])
        if verdict.red:
            light.append(f" by {verdict.by}")
        table.add_row(verdict.gate, verdict.limit, verdict.found, light)
    return table


def _version(version: RegisteredVersion | None) -> str:
    return "none" if version is None else f"version {version.version}"
