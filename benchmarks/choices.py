"""How near the preflight's choice is to the best of all combinations, which take turns here.

    python -m benchmarks.choices               ResNet-18 and -50, slim and classic, 96 px, batch 8
    python -m benchmarks.choices --compile     with torch.compile: minutes more a combination

A combination is precision, memory layout, compiling, and threads of each trial; as many trials run
side by side as the cores suffice for. First the preflight chooses with the patience that it has in
a sweep, then every combination is timed round by round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.peers.images import made_dataset  # noqa: E402
from benchmarks.peers.loops import Combination  # noqa: E402
from benchmarks.peers.ours import our_config  # noqa: E402
from benchmarks.peers.report import about, heading, write_json  # noqa: E402
from benchmarks.peers.rounds import Arm, Spread, Times, interleaved  # noqa: E402
from sweeps.preflight.choices.combinations import (  # noqa: E402
    Model,
    Way,
    measure,
    ways_to_share,
)
from sweeps.preflight.choices.probes import Probes  # noqa: E402
from sweeps.preflight.step_cost import Size  # noqa: E402
from unetexp.compute.device import device_kind  # noqa: E402
from unetexp.compute.measured import candidates, wording  # noqa: E402
from unetexp.compute.settings import ComputeSettings  # noqa: E402
from unetexp.data import Dataset  # noqa: E402
from unetexp.system.machine import available_cores  # noqa: E402
from unetexp.training.config import TrainConfig  # noqa: E402

CPU = torch.device("cpu")
TARGET_PERCENT = 5.0  # that the chosen one may be behind the best
_LIMIT_S = 600.0  # for a step, compiling with it
_NO_MEMORY_LIMIT = 1


def model_config(encoder: str, decoder: str, size: Size) -> TrainConfig:
    """The benchmarks' configuration, with precision and layout left open."""
    config = our_config(
        Combination(), px=size.side_px, batch=size.images, decoder=decoder, encoder=encoder
    )
    return config.model_copy(update={"precision": "auto", "memory_format": "auto"})


def chosen_and_all(
    config: TrainConfig, data: Dataset, probes: Probes, size: Size, options: argparse.Namespace
) -> tuple[Way, Times]:
    """What the preflight chooses, and the seconds an image of all combinations by `label`."""
    shares = ways_to_share(available_cores(), 0, _NO_MEMORY_LIMIT, trials=sys.maxsize)
    probes.load(config, data, max(shares), _LIMIT_S)

    def time_step(settings: ComputeSettings, at_once: int, threads: int, of: Size) -> float:
        return probes.step_s(settings, of, at_once, threads, _LIMIT_S)

    found = candidates(config, CPU)
    model = Model(config.decoder.kind, found)
    measured = measure(device_kind(CPU), model, shares, size, time_step)
    assert measured is not None
    if options.compile:
        found += [replace(settings, compile="default") for settings in found]

    def arm(way: Way) -> Arm:
        return lambda: (
            time_step(way.settings, way.at_once, way.threads, size) / way.at_once / size.images
        )

    ways = [Way(settings, *share) for share in shares.items() for settings in found]
    times = interleaved({label(way): arm(way) for way in ways}, options.rounds)
    best = measured.of_choice[0]
    return Way(best.settings, best.at_once, best.threads), times


def label(way: Way) -> str:
    """The first three columns of a combination's row."""
    return f"{wording(way.settings)} | {way.threads} | {way.at_once}"


def behind_percent(chosen: str, times: Times) -> float:
    """By how much the chosen one's median is above that of the best."""
    medians = {name: Spread.of(values).median for name, values in times.items()}
    return 100 * (medians[chosen] / min(medians.values()) - 1)


def table(title: str, chosen: str, times: Times) -> str:
    """Markdown: the combinations, the fastest first, and how far the choice is from it."""
    spreads = {name: Spread.of(values) for name, values in times.items()}
    order = sorted(spreads, key=lambda name: spreads[name].median)
    lines = [
        f"### {title}",
        "",
        "| computes in | threads | trials at once | ms an image | quartiles | |",
        "|---|---|---|---|---|---|",
    ]
    for name in order:
        ms = [
            1e3 * value for value in (spreads[name].median, spreads[name].low, spreads[name].high)
        ]
        mark = "chosen" if name == chosen else ""
        lines.append(f"| {name} | {ms[0]:.3g} | {ms[1]:.3g} to {ms[2]:.3g} | {mark} |")
    behind = behind_percent(chosen, times)
    verdict = "met" if behind <= TARGET_PERCENT else "missed"
    lines += [
        "",
        f"Chosen: {behind:.1f} % behind the best (at most {TARGET_PERCENT:g}: {verdict}).",
    ]
    return "\n".join(lines)


def tables(options: argparse.Namespace) -> Iterator[tuple[str, str, Times]]:
    """(title, chosen, times) of one model after the other."""
    size, window_px = Size(options.px, options.batch), options.px * 3 // 2
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(available_cores())}
    with made_dataset(options.batch, (window_px, window_px)) as data:
        for encoder in options.encoders:
            for decoder in options.decoders:
                config = model_config(encoder, decoder, size)
                shares = ways_to_share(available_cores(), 0, _NO_MEMORY_LIMIT, sys.maxsize)
                with Probes(max(shares), environment) as probes:
                    chosen, times = chosen_and_all(config, data, probes, size, options)
                title = f"{encoder}, {decoder}, {size.side_px} px, batch {size.images}, cpu"
                yield title, label(chosen), times


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--px", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--decoders", nargs="+", default=["slim", "classic"])
    parser.add_argument("--compile", action="store_true", help="time compiled steps, too")
    parser.add_argument("--json", type=Path, help="write all times there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    facts = about(CPU)
    print(f"## Choices\n\n{heading(facts)}\n", flush=True)
    groups = []
    for title, chosen, times in tables(options):
        print(table(title, chosen, times) + "\n", flush=True)
        groups.append({"title": title, "chosen": chosen, "seconds_per_image": times})
    write_json(options.json, {"about": facts, "groups": groups})


if __name__ == "__main__":
    main()
