"""Fills the GPU's columns of docs/performance.md: one command, one file, under 9 minutes.

    python -m benchmarks.gpu --out bench-gpu.md
    python -m benchmarks.gpu --device cpu --tiny       the same code on 32 px, to try it

It needs torch, torchvision, pydantic and platformdirs beside numpy, pillow, psutil and joblib, and
neither Ray, Optuna nor MLflow. segmentation_models_pytorch is rebuilt where it is missing. Parts
are left out, and named, where the time runs out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.peers.loops import Combination, Loop, fastest  # noqa: E402
from benchmarks.peers.ours import WholeStep, our_config  # noqa: E402
from benchmarks.peers.report import about, chosen_device, figures_table, heading  # noqa: E402
from benchmarks.peers.unets import smp_name, smp_unet  # noqa: E402
from benchmarks.train_step import (  # noqa: E402
    CLASSES,
    Setup,
    classic,
    freezing,
    our_step,
    our_whole,
    slim,
)
from unetexp.training.experiment import Experiment  # noqa: E402

NO_GPU = (
    "There is no CUDA device here, so nothing was measured and no file was written. Run "
    "`make bench-gpu` on a machine with an NVIDIA GPU, or try the program without one: "
    "python -m benchmarks.gpu --device cpu --tiny"
)
WORKERS = 4
WAITING_PERCENT, BUSY_PERCENT, START_S = 2.0, 85.0, 1.0  # the targets on an H100


@dataclass
class Findings:
    """What the file will hold; written after each part, so that an early end loses little."""

    path: Path
    facts: dict[str, str]
    deadline: float  # of `time.perf_counter`
    parts: list[str] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)

    def add(self, markdown: str, details: dict[str, Any]) -> None:
        print(markdown + "\n", flush=True)
        self.parts.append(markdown)
        self.details.append(details)
        whole = [f"## Measured on {self.facts['device']}", heading(self.facts), *self.parts]
        data = json.dumps({"about": self.facts, "parts": self.details}, indent=1)
        whole.append(f"<details><summary>All times</summary>\n\n```json\n{data}\n```\n\n</details>")
        self.path.write_text("\n\n".join(whole) + "\n", encoding="utf-8")

    def in_time(self, share: float, what: str) -> bool:
        """Whether at least `share` of the last minutes is left; says what is left out else."""
        if time.perf_counter() < self.deadline - share:
            return True
        self.add(f"{what}: not measured, the time ran out.", {"left_out": what})
        return False


def hows(setup: Setup, until: float) -> tuple[Combination, Combination, str]:
    """The fastest combinations of ours and of smp's, and a sentence with all of them."""
    with setup.data() as data:
        half = time.perf_counter() + (until - time.perf_counter()) / 2
        ours = fastest(lambda how: our_step(setup, data, how), setup.device, steps=5, until=half)
    batch = setup.tensors
    theirs = fastest(
        lambda how: Loop(smp_unet(CLASSES), batch, how, tuned=True),
        setup.device,
        steps=5,
        until=until,
    )
    sentence = f"Tried: ours {_listed(ours)}; (c) {_listed(theirs)}."
    return next(iter(ours)), next(iter(theirs)), sentence


def _listed(found: dict[Combination, float]) -> str:
    return ", ".join(f"{how} {1e3 * seconds:.1f} ms" for how, seconds in found.items())


def busy_share(intervals: Iterable[tuple[float, float]], length: float) -> float:
    """The share that intervals cover of `length`, from the first start on."""
    covered, reach, end_of_all = 0.0, None, 0.0
    for start, end in sorted(intervals):
        if reach is None:
            reach, end_of_all = start, start + length
        end = min(end, end_of_all)
        covered += max(0.0, end - max(start, reach))
        reach = max(reach, end)
    return covered / length


def gpu_busy_percent(whole: WholeStep) -> float:
    """The share of an epoch's training in which a kernel or a copy ran, by torch's profiler."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        whole()
    on_gpu = [
        event.time_range
        for event in profiled.events()
        # Ranges that torch names, such as an optimiser's step, are no work of the GPU.
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]
    trained_us = 1e6 * whole.trained_s[-1]  # validation follows it
    return 100 * busy_share(((at.start, at.end) for at in on_gpu), trained_us)


def whole_training(setup: Setup, how: Combination) -> tuple[str, dict[str, Any]]:
    """Waiting for data, GPU busy and images per second of a whole step, as `fit` runs it."""
    with setup.data() as data:
        whole: WholeStep = our_whole(setup, data, how)
        seconds = min(whole() for _ in range(setup.rounds + 1))
        on_gpu = setup.device.type == "cuda"
        busy = gpu_busy_percent(whole) if on_gpu else None
    waiting = 100 * whole.waiting_share
    idle_most = 100 - BUSY_PERCENT if setup.px == 256 else None
    rows = [
        (f"whole step, {setup.px} px: waiting for raw batches", waiting, "%", WAITING_PERCENT),
        (f"whole step, {setup.px} px: GPU idle", 100 - busy if on_gpu else None, "%", idle_most),
        (f"whole step, {setup.px} px: images per second", setup.batch / seconds, "", None),
    ]
    return figures_table(rows), {"px": setup.px, "waiting": waiting, "busy": busy}


def starts(device: torch.device, encoder: str) -> tuple[str, dict[str, Any]]:
    """Seconds to construct an experiment in a process that has done so before."""
    setup = Setup(px=64, batch=2, rounds=1, steps=1, device=device)
    config = our_config(Combination(), px=64, batch=2, encoder=encoder)
    seconds = []
    with setup.data() as data, TemporaryDirectory() as scratch:
        for number in range(4):
            started = time.perf_counter()
            Experiment(config, data, Path(scratch) / str(number), device)
            seconds.append(time.perf_counter() - started)
    best = sorted(seconds[1:])[1]
    rows = [("construction of a trial in a warm process", best, "s", START_S)]
    return figures_table(rows), {"construct_s": seconds}


def setups(device: torch.device, tiny: bool) -> list[Setup]:
    """The sizes that the targets name."""
    if tiny:
        return [Setup(32, 2, rounds=1, steps=1, device=device, levels=("none", "all"))]
    levels = ("none", "stem", "stage2", "all")
    return [
        Setup(512, 16, rounds=9, steps=10, device=device, levels=levels, workers=WORKERS),
        Setup(256, 32, rounds=9, steps=10, device=device, levels=levels, workers=WORKERS),
    ]


def measure(findings: Findings, device: torch.device, *, tiny: bool) -> None:
    """All parts, the ones with targets first."""
    sizes = setups(device, tiny)
    chosen = []
    for number, setup in enumerate(sizes):
        left = findings.deadline - time.perf_counter()
        until = time.perf_counter() + left * (0.35 if number == 0 else 0.5)
        ours, theirs, sentence = hows(setup, until)
        chosen.append((setup, (ours, theirs)))
        group = slim(setup, (ours, theirs))
        group.notes.append(sentence)
        findings.add(group.markdown(), group.tree())
        findings.add(*whole_training(setup, ours))
    findings.add(*starts(device, "resnet50"))
    for setup, pair in chosen:
        if findings.in_time(60, f"frozen encoder, {setup.px} px"):
            group = freezing(setup, pair, whole=False)
            findings.add(group.markdown(), group.tree())
    last = sizes[-1]
    small = Setup(last.px, min(8, last.batch), last.rounds, last.steps, device)
    if findings.in_time(60, "classic against the original"):
        group = classic(small)
        findings.add(group.markdown(), group.tree())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--tiny", action="store_true", help="32 px: to try the program")
    parser.add_argument("--minutes", type=float, default=8.0, help="start nothing long after these")
    parser.add_argument("--out", type=Path, default=Path("bench-gpu.md"))
    options = parser.parse_args(arguments)
    device = chosen_device(options.device)
    no_gpu = not torch.cuda.is_available() and (device.type == "cuda" or options.device == "auto")
    if no_gpu:
        print(NO_GPU)
        return
    facts = about(device, smp_name())
    deadline = time.perf_counter() + 60 * options.minutes
    measure(Findings(options.out, facts, deadline), device, tiny=options.tiny)
    print(f"Written to {options.out}.")


if __name__ == "__main__":
    main()
