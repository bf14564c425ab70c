"""How a trial learns: what each default is worth, and how steady the curves are.

    python benchmarks/learning.py defaults --out FILE   every default undone, one at a time, 3 seeds
    python benchmarks/learning.py curves --out FILE     20 random trials, with the defaults of now
                                                        and with those of before
    python benchmarks/learning.py tables --out FILE     what FILE holds, as tables
    python benchmarks/learning.py plot --out FILE --to curves.png

    python benchmarks/learning.py cut --set ROOT --to FOLDER   a small set: one 96 px crop an image

FILE has one JSON line a run; runs that it holds are not repeated. --set mni152 (the quickstart's
slices, 91 for training) or --set PATH (a folder); --encoder resnet18 keeps it to minutes a table.
The peer is a plain loop over segmentation_models_pytorch (pip install -e '.[bench]'): AdamW with a
constant rate and no augmentation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.curves.arms import INITIALISED, PEER, initialise_as_the_peer, runs  # noqa: E402
from benchmarks.curves.runs import (  # noqa: E402
    arguments,
    base_config,
    finished,
    follow,
    keep,
    started,
)
from benchmarks.curves.small_set import cut  # noqa: E402
from benchmarks.curves.tables import plot, tables  # noqa: E402
from benchmarks.peers.plain_loop import plain_loop  # noqa: E402
from benchmarks.peers.unets import HOW_TO_INSTALL, SMP, smp_version  # noqa: E402
from unetexp.component import override  # noqa: E402
from unetexp.data import Dataset, open_dataset  # noqa: E402
from unetexp.training.averaging import AveragedWeights  # noqa: E402
from unetexp.training.config import TrainConfig, decode_config  # noqa: E402


def train(arm: str, config: TrainConfig, data: Dataset) -> list[dict[str, float]]:
    """The metrics of each epoch of a run."""
    if arm == PEER:
        return plain_loop(config, data)
    state = started(config, data)
    if arm == INITIALISED:
        initialise_as_the_peer(state.model)
        decay = config.averaging_decay(len(data["train"]))
        state.ema = None if decay is None else AveragedWeights(state.model, decay)
    return follow(config, data, state)


def measure(asked: argparse.Namespace) -> None:
    """Do the runs that the file does not hold."""
    torch.set_num_threads(1)
    encoder = {"name": asked.encoder, "weights": "none"}
    config = base_config(asked.set, asked.epochs, encoder)
    data = open_dataset(config.data)
    place = {"set": asked.set, "epochs": asked.epochs, "encoder": asked.encoder}
    done = finished(asked.out, place)
    for arm, seed, changes in runs(asked.what, asked.seeds, asked.trials):
        if (arm, seed) in done or (asked.arms and arm not in asked.arms):
            continue
        if arm == PEER and smp_version() is None:
            print(f"{arm}: left out, {SMP} is not installed ({HOW_TO_INSTALL})")
            continue
        changed = decode_config(override(TrainConfig, config.tree(), {**changes, "seed": seed}))
        record = {**place, "what": asked.what, "arm": arm, "seed": seed, "changes": changes}
        keep(asked.out, {**record, "history": train(arm, changed, data)})


def main() -> None:
    parser = arguments(__doc__, ["defaults", "curves", "tables", "plot", "cut"])
    parser.add_argument("--to", type=Path, default=Path("curves.png"), help="what plot, cut write")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--trials", type=int, default=20, help="of curves")
    asked = parser.parse_args()
    if asked.what == "tables":
        tables(asked.out)
    elif asked.what == "cut":
        cut(Path(asked.set), asked.to)
    elif asked.what == "plot":
        plot(asked.out, asked.to)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
