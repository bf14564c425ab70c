"""What a benchmark prints: the machine, its versions and the date, and Markdown tables."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision

from benchmarks.peers.rounds import Ratio, Spread, Times
from unetexp.system.machine import available_cores
from unetexp.training.experiment import cpu_model
from unetexp.version import __version__

NOT_MEASURED = "not measured"


@dataclass
class Group:
    """One table: seconds per step of arms that took turns, and the ratios between them."""

    title: str
    times: Times
    ratios: list[Ratio]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [
            f"### {self.title}",
            "",
            "| seconds per step | median | quartiles |",
            "|---|---|---|",
        ]
        for name, values in self.times.items():
            spread = Spread.of(values)
            lines.append(
                f"| {name} | {spread.median:.4g} | {spread.low:.4g} to {spread.high:.4g} |"
            )
        lines += ["", "| ratio | median | quartiles | target | |", "|---|---|---|---|---|"]
        lines += [_row(ratio) for ratio in self.ratios]
        return "\n".join([*lines, *_paragraphs(self.notes)])

    def tree(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "seconds_per_step": self.times,
            "ratios": [asdict(ratio) for ratio in self.ratios],
            "notes": self.notes,
        }


def _row(ratio: Ratio) -> str:
    spread, target = ratio.spread, ratio.target
    verdict = "" if target is None else _verdict(spread.median, target)
    aim = "" if target is None else f"{target:g}"
    quartiles = f"{spread.low:.2f} to {spread.high:.2f}"
    return f"| {ratio.what} | {spread.median:.2f} | {quartiles} | {aim} | {verdict} |"


def _verdict(value: float, target: float) -> str:
    return "met" if value >= target else f"missed by {100 * (1 - value / target):.0f} %"


def figures_table(rows: Iterable[tuple[str, float | None, str, float | None]]) -> str:
    """(what, value, unit, the most it may be) as Markdown; None is a figure nobody measured."""
    lines = ["| | measured | target | |", "|---|---|---|---|"]
    for what, value, unit, most in rows:
        shown = NOT_MEASURED if value is None else f"{value:.3g} {unit}".rstrip()
        aim = "" if most is None else f"at most {most:g} {unit}".rstrip()
        verdict = ""
        if most is not None and value is not None:
            verdict = "met" if value <= most else "missed"
        lines.append(f"| {what} | {shown} | {aim} | {verdict} |")
    return "\n".join(lines)


def _paragraphs(notes: list[str]) -> list[str]:
    return [line for note in notes for line in ("", note)]


def about(device: torch.device, *more: str) -> dict[str, str]:
    """Machine, versions and date."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cpu": cpu_model(),
        "cores": str(available_cores()),
        "threads": str(torch.get_num_threads()),
        "AMX": "yes" if torch.cpu._is_amx_tile_supported() else "no",
        "load": f"{os.getloadavg()[0]:.1f}",  # at the start; a busy machine's ratios mean little
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "unetexp": __version__,
        "others": ", ".join(more),
        "date": datetime.datetime.now().astimezone().date().isoformat(),
    }


def heading(facts: dict[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in facts.items() if value)


def chosen_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def write_json(path: Path | None, tree: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
