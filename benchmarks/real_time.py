"""What a real-time model costs in mIoU: `lite` over EfficientNet-Lite0 beside larger models.

    python benchmarks/real_time.py measure --set ROOT --out FILE   every model, 3 seeds
    python benchmarks/real_time.py tables --out FILE               what FILE holds, as a table

All train alike: the quickstart's settings, crops of 96 px. Weights are `auto`, so ResNet-50 starts
from random ones where torchvision's cannot be had; the table says which it was. FILE has one JSON
line a run; runs that it holds are not repeated. Frames a second: `python -m benchmarks.decoders`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.curves.runs import (  # noqa: E402
    arguments,
    base_config,
    finished,
    follow,
    keep,
    records,
    started,
)
from unetexp.component import override  # noqa: E402
from unetexp.data import open_dataset  # noqa: E402
from unetexp.models.weights.resolution import resolve_weights  # noqa: E402
from unetexp.training.config import TrainConfig, decode_config  # noqa: E402

MODELS = (  # kind, name, decoder
    ("resnet", "resnet50", "classic"),
    ("timm", "tf_efficientnet_lite0", "lite"),
    ("resnet", "resnet50", "slim"),
    ("timm", "tf_efficientnet_lite0", "slim"),
)


def measure(asked: argparse.Namespace) -> None:
    """Do the runs that the file does not hold."""
    torch.set_num_threads(1)
    place = {"set": asked.set, "epochs": asked.epochs}
    done = finished(asked.out, place)
    for seed in range(asked.seeds):
        for kind, name, decoder in MODELS:
            arm = f"{name}, {decoder}"
            if (arm, seed) in done or (asked.arms and arm not in asked.arms):
                continue
            base = base_config(
                asked.set, asked.epochs, {"kind": kind, "name": name, "weights": "auto"}
            )
            changes = {"decoder.kind": decoder, "loss.kind": "dice_ce", "seed": seed}
            config = decode_config(override(TrainConfig, base.tree(), changes))
            settled = resolve_weights(config.encoder).encoder
            config = config.model_copy(update={"encoder": settled})
            data = open_dataset(config.data)
            state = started(config, data)
            weights = state.initial_weights.source
            history = follow(config, data, state)
            keep(
                asked.out,
                {**place, "arm": arm, "seed": seed, "weights": weights, "history": history},
            )


def tables(path: Path) -> None:
    """Print a table for each data set of the file."""
    found = records(path)
    for place in dict.fromkeys((r["set"], r["epochs"]) for r in found):
        of_place = [r for r in found if (r["set"], r["epochs"]) == place]
        print(f"\n{Path(place[0]).name}, {place[1]} epochs\n")
        print("| model | initial weights | best val/miou, mean | each seed | CPU s |")
        print("|---|---|---|---|---|")
        for arm, weights in dict.fromkeys((r["arm"], r["weights"]) for r in of_place):
            histories = [r["history"] for r in of_place if r["arm"] == arm]
            scores = [max(epoch["val/miou"] for epoch in history) for history in histories]
            each = ", ".join(f"{score:.3f}" for score in scores)
            seconds = statistics.mean(history[-1]["cpu_s"] for history in histories)
            print(f"| {arm} | {weights} | {statistics.mean(scores):.3f} | {each} | {seconds:.0f} |")


def main() -> None:
    parser = arguments(__doc__, ["measure", "tables"])
    parser.set_defaults(epochs=8)
    asked = parser.parse_args()
    if asked.what == "tables":
        tables(asked.out)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
