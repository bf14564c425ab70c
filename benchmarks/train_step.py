"""The train step beside others' loops, in one run and in turns: ratios with their spread.

    python -m benchmarks.train_step            96 px, batch 8: about 15 minutes on 2 cores
    python -m benchmarks.train_step --quick    the same with fewer rounds and levels

(a) is the original model in a plain loop in fp32, (b) segmentation_models_pytorch's Unet in a plain
loop, (c) the same as its users can tune it: the fastest measured combination of precision, memory
layout and, on a GPU, torch.compile, with fused AdamW. All have a ResNet-50; (b), (c) and slim have
the same widths. Ours computes in the fastest of the same combinations. "given tensors" is the step
without its data; "whole step" is `unetexp.fit`, with reading, augmentation, clipping and schedule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.peers.images import made_dataset  # noqa: E402
from benchmarks.peers.loops import (  # noqa: E402
    PLAIN,
    Batch,
    Combination,
    Loop,
    fastest,
    given_batch,
)
from benchmarks.peers.ours import GivenStep, WholeStep, our_config  # noqa: E402
from benchmarks.peers.report import (  # noqa: E402
    Group,
    about,
    chosen_device,
    heading,
    write_json,
)
from benchmarks.peers.rounds import Arm, Ratio, interleaved, ratio, timed  # noqa: E402
from benchmarks.peers.unets import (  # noqa: E402
    about_smp,
    freeze_as_users_do,
    original_unet,
    smp_name,
    smp_unet,
)
from unetexp.data import Dataset  # noqa: E402
from unetexp.models.encoders import FreezeLevel  # noqa: E402
from unetexp.system.machine import available_cores  # noqa: E402

CLASSES = 4
LEVELS: tuple[str, ...] = get_args(FreezeLevel)
ORIGINAL, GIVEN, WHOLE = "(a) original, fp32", "ours, given tensors", "ours, whole step"
TARGET_PLAIN, TARGET_TUNED, TARGET_FROZEN = 1.25, 1.0, 1.7  # on a CPU
GPU_TARGET_PLAIN, GPU_TARGET_TUNED = 3.0, 1.15  # on an H100 at 512 px


@dataclass(frozen=True)
class Setup:
    """Equal for all arms."""

    px: int
    batch: int
    rounds: int
    steps: int  # per round
    device: torch.device
    levels: tuple[str, ...] = LEVELS
    workers: int = 0

    @contextmanager
    def data(self) -> Iterator[Dataset]:
        side = self.px * 3 // 2  # the window around the largest crop fits
        with made_dataset(self.batch * self.steps, (side, side), CLASSES) as data:
            yield data

    @property
    def tensors(self) -> Batch:
        return given_batch(self.batch, self.px, CLASSES, self.device)

    def arm(self, step: Loop | GivenStep) -> Arm:
        return timed(step, self.steps, self.device)


def our_step(setup: Setup, data: Dataset, how: Combination, **choices: str) -> GivenStep:
    return GivenStep(
        our_config(how, px=setup.px, batch=setup.batch, **choices), data, setup.tensors
    )


def our_whole(setup: Setup, data: Dataset, how: Combination, **choices: str) -> WholeStep:
    config = our_config(how, px=setup.px, batch=setup.batch, **choices)
    return WholeStep(config, data, setup.device, setup.workers)


def our_best(setup: Setup, data: Dataset, **choices: str) -> Combination:
    found = fastest(lambda how: our_step(setup, data, how, **choices), setup.device)
    return next(iter(found))


def smp_best(setup: Setup) -> Combination:
    batch = setup.tensors
    found = fastest(lambda how: Loop(smp_unet(CLASSES), batch, how, tuned=True), setup.device)
    return next(iter(found))


def classic(setup: Setup) -> Group:
    """Ours with the decoder `classic` against the original model."""
    with setup.data() as data:
        how = our_best(setup, data, decoder="classic")
        whole = our_whole(setup, data, how, decoder="classic")
        arms = {
            ORIGINAL: setup.arm(Loop(original_unet(CLASSES), setup.tensors)),
            GIVEN: setup.arm(our_step(setup, data, how, decoder="classic")),
            WHOLE: whole,
        }
        times = interleaved(arms, setup.rounds)
    target = 1.5 if torch.cpu._is_amx_tile_supported() else 1.0
    ratios = [
        ratio(times, ORIGINAL, GIVEN, target if setup.device.type == "cpu" else None),
        ratio(times, ORIGINAL, WHOLE),
        ratio(times, WHOLE, GIVEN),
    ]
    notes = [f"Ours computes in {how}.", _waits(whole)]
    return Group(f"classic against the original, {_size(setup)}", times, ratios, notes)


def slim(setup: Setup, hows: tuple[Combination, Combination]) -> Group:
    """Ours with the decoder `slim` against smp's Unet, plain and tuned; equal widths.

    `hows`: the combinations of ours and of (c).
    """
    ours, theirs = hows
    plain, tuned = f"(b) {smp_name()}, plain", f"(c) {smp_name()}, tuned"
    with setup.data() as data:
        whole = our_whole(setup, data, ours)
        arms = {
            plain: setup.arm(Loop(smp_unet(CLASSES), setup.tensors)),
            tuned: setup.arm(Loop(smp_unet(CLASSES), setup.tensors, theirs, tuned=True)),
            GIVEN: setup.arm(our_step(setup, data, ours)),
            WHOLE: whole,
        }
        times = interleaved(arms, setup.rounds)
    targets = _slim_targets(setup)
    ratios = [
        ratio(times, plain, GIVEN, targets[0]),
        ratio(times, tuned, GIVEN, targets[1]),
        ratio(times, plain, WHOLE),
        ratio(times, tuned, WHOLE),
        ratio(times, WHOLE, GIVEN),
    ]
    notes = [f"Ours computes in {ours}, (c) in {theirs}, (b) in {PLAIN}.", _waits(whole)]
    if sentence := about_smp():
        notes.append(sentence)
    return Group(f"slim against {smp_name()}, {_size(setup)}", times, ratios, notes)


def _slim_targets(setup: Setup) -> tuple[float | None, float | None]:
    if setup.device.type == "cpu":
        return TARGET_PLAIN, TARGET_TUNED
    return (GPU_TARGET_PLAIN, GPU_TARGET_TUNED) if setup.px == 512 else (None, None)


def freezing(setup: Setup, hows: tuple[Combination, Combination], *, whole: bool) -> Group:
    """slim at each freezing level against itself unfrozen, and smp's with `requires_grad` off.

    `whole` times `fit` instead of given tensors, and leaves smp's out.
    """
    ours, theirs = hows
    with setup.data() as data:
        if whole:
            arms: dict[str, Arm] = {
                f"ours, {level}": our_whole(setup, data, ours, freeze=level)
                for level in setup.levels
            }
        else:
            arms = {
                f"ours, {level}": setup.arm(our_step(setup, data, ours, freeze=level))
                for level in setup.levels
            }
            arms |= {f"(c), {lv}": setup.arm(_frozen_smp(setup, theirs, lv)) for lv in setup.levels}
        times = interleaved(arms, setup.rounds)
    ratios = [r for who in ("ours", "(c)") for r in _against_unfrozen(setup, times, who)]
    what = "whole step" if whole else "given tensors"
    notes = [] if whole else [f"(c) is {smp_name()} tuned, with requires_grad = False."]
    return Group(f"frozen encoder, {what}, {_size(setup)}", times, ratios, notes)


def _frozen_smp(setup: Setup, how: Combination, level: str) -> Loop:
    model = smp_unet(CLASSES)
    freeze_as_users_do(model, level)
    return Loop(model, setup.tensors, how, tuned=True)


def _against_unfrozen(setup: Setup, times: dict[str, list[float]], who: str) -> list[Ratio]:
    unfrozen = f"{who}, none"
    return [
        ratio(times, unfrozen, f"{who}, {level}", _frozen_target(setup, who, level))
        for level in setup.levels
        if level != "none" and unfrozen in times
    ]


def _frozen_target(setup: Setup, who: str, level: str) -> float | None:
    meant = who == "ours" and level == "all" and setup.device.type == "cpu"
    return TARGET_FROZEN if meant else None


def _size(setup: Setup) -> str:
    return f"{setup.px} px, batch {setup.batch}, {setup.device.type}"


def _waits(whole: WholeStep) -> str:
    return f"The whole step waits {100 * whole.waiting_share:.1f} % of its time for raw batches."


def measured(setup: Setup) -> Iterator[Group]:
    """All groups, one after the other."""
    with setup.data() as data:
        hows = our_best(setup, data), smp_best(setup)
    yield slim(setup, hows)
    yield freezing(setup, hows, whole=False)
    yield freezing(setup, hows, whole=True)
    yield classic(setup)


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--px", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2, help="per round")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--levels", type=lambda text: tuple(text.split(",")), default=LEVELS)
    parser.add_argument("--quick", action="store_true", help="few rounds; levels none and all")
    parser.add_argument("--json", type=Path, help="write all times there")
    options = parser.parse_args(arguments)
    if unknown := set(options.levels) - set(LEVELS):
        parser.error(f"no such level: {', '.join(unknown)}; there are: {', '.join(LEVELS)}")
    if options.quick:
        options.rounds, options.steps, options.levels = 3, 1, ("none", "all")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    torch.set_num_threads(options.threads or available_cores())
    device = chosen_device(options.device)
    workers = 4 if device.type == "cuda" else 0
    setup = Setup(
        options.px, options.batch, options.rounds, options.steps, device, options.levels, workers
    )
    facts = about(device, smp_name())
    print(f"## Train step\n\n{heading(facts)}\n", flush=True)
    groups = []
    for group in measured(setup):
        print(group.markdown() + "\n", flush=True)
        groups.append(group.tree())
    write_json(options.json, {"about": facts, "groups": groups})


if __name__ == "__main__":
    main()
