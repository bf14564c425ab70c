"""The decoders' speed: frames a second, parameters and GFLOPs of each over given encoders.

    python -m benchmarks.decoders                    512 px, one thread, eval mode, fp32
    python -m benchmarks.decoders --side 96 --rounds 1

The models take turns, and the best round of each counts, in seconds of CPU time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from unetexp.component import decode  # noqa: E402
from unetexp.models.cost import model_cost  # noqa: E402
from unetexp.models.decoders import Decoder, DecoderKind  # noqa: E402
from unetexp.models.encoders import Encoder  # noqa: E402
from unetexp.models.unet import build_unet  # noqa: E402

ENCODERS = ("resnet:resnet50", "timm:tf_efficientnet_lite0")
KINDS: tuple[DecoderKind, ...] = get_args(DecoderKind)
CLASSES = 2


class Figures(NamedTuple):
    """What was measured of a model."""

    encoder: str
    decoder: str
    parameters: int
    gflops: float
    frames_s: float


def measured(
    encoders: list[str], side: int, rounds: int, kinds: Sequence[DecoderKind] = KINDS
) -> list[Figures]:
    """The figures of each kind of decoder over each of `encoders`, KIND:NAME."""
    image = torch.randn(1, 3, side, side)
    models = {(encoder, kind): _model(encoder, kind) for encoder in encoders for kind in kinds}
    costs = {
        (encoder, kind): model_cost(settings_of(encoder), Decoder(kind=kind), CLASSES, 3, side)
        for encoder, kind in models
    }
    seconds = dict.fromkeys(models, float("inf"))
    with torch.inference_mode():
        for _ in range(rounds + 1):  # the first warms up
            for key, model in models.items():
                started = time.process_time()
                model(image)
                seconds[key] = min(seconds[key], time.process_time() - started)
    return [
        Figures(*key, costs[key].parameters, costs[key].gflops, 1 / seconds[key]) for key in models
    ]


def table(figures: list[Figures]) -> str:
    """Markdown, with each speed beside that of the first row."""
    lines = [
        "| encoder | decoder | parameters | GFLOPs | frames/s | times the first |",
        "|---|---|---|---|---|---|",
    ]
    for row in figures:
        lines.append(
            f"| {row.encoder} | {row.decoder} | {row.parameters / 1e6:.1f} M | {row.gflops:.1f} "
            f"| {row.frames_s:.2f} | {row.frames_s / figures[0].frames_s:.1f} |"
        )
    return "\n".join(lines)


def settings_of(encoder: str) -> Encoder:
    """The settings of an encoder KIND:NAME, with random weights."""
    family, _, name = encoder.partition(":")
    settings: Encoder = decode(Encoder, {"kind": family, "name": name, "weights": "none"})
    return settings


def _model(encoder: str, kind: DecoderKind) -> nn.Module:
    model = build_unet(settings_of(encoder), Decoder(kind=kind), CLASSES, 3).eval()
    # the layout that training chooses on a CPU
    suits = torch.contiguous_format if kind == "classic" else torch.channels_last
    return model.to(memory_format=suits)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), metavar="KIND:NAME")
    parser.add_argument("--decoders", nargs="+", default=KINDS, choices=KINDS, metavar="KIND")
    parser.add_argument("--side", type=int, default=512, help="of the image, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(table(measured(options.encoders, options.side, options.rounds, options.decoders)))


if __name__ == "__main__":
    main()
