"""Records learning curves: what the search is chosen by (`benchmarks/search.py`).

    python benchmarks/learning.py cut --set ROOT --to nuclei_small      a set of small crops
    python benchmarks/curves/record.py time --sets mni152 nuclei_small  the hours that it will take
    python benchmarks/curves/record.py run --sets mni152 nuclei_small --out curves.jsonl
    python benchmarks/curves/record.py table --out curves.jsonl

`run` is one process with one thread at low priority. For more cores start one a core, with
`--share 1/2 --out a.jsonl`, `--share 2/2 --out b.jsonl`, and give `table` every file. Each run of
27 epochs is a line of the file as soon as it has ended; started again, it goes on where it was
killed. Configurations come in the order of a Sobol sequence over the space of
`benchmarks/curves/recipe.yaml`, the sets in turn, each 8th with further seeds, so that the table
can be made at any time, and can grow: with `--known TABLE` what it holds is not trained again, and
`table` keeps it. Recorded of each epoch: every metric, CPU seconds and wall seconds. `table` writes
one Parquet file; its metadata holds the command, the machine, the dates, the versions and the
space.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import filelock
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.curves.curve_table import (  # noqa: E402
    RUN,
    TABLE,
    curves_of,
    joined,
    read_table,
    require_same,
    write_table,
)
from benchmarks.curves.plan import Run, experiment_of, recipe_of, runs  # noqa: E402
from benchmarks.curves.provenance import command_of, here  # noqa: E402
from benchmarks.curves.runs import append, epochs_of, records, started  # noqa: E402
from sweeps.config.recipe import Recipe  # noqa: E402
from unetexp.data import Dataset, open_dataset  # noqa: E402
from unetexp.errors import NonFiniteLossError, UserError  # noqa: E402

NICENESS = 10


def record(asked: argparse.Namespace, file: Path, changes: dict[str, Any]) -> None:
    """Do the runs that the file does not hold, one after the other."""
    recipes = {root: recipe_of(root, changes) for root in asked.sets}
    found = records(file)
    origin = experiment_of(recipes[asked.sets[0]])
    for known in found:
        if {name: known[name] for name in origin} != origin:
            raise UserError(
                f"{file} holds runs of another experiment, of {known['epochs']} epochs: "
                f"{known['command']}. Repeat that command, or give another file with --out."
            )
    done = {(known["set"], known["config"], known["seed"]) for known in found}
    if asked.known:
        table = read_table(asked.known)
        require_same(table, origin)
        done |= set(table.rows[RUN].itertuples(index=False, name=None))
    part, parts = asked.share
    own = planned(asked, recipes)[part - 1 :: parts]
    todo = [run for run in own if run.key not in done]
    print(f"{len(own) - len(todo)} runs are done, {len(todo)} are to do", flush=True)
    data = {root: open_dataset(recipes[root].base.data) for root in asked.sets}
    for number, run in enumerate(todo, start=1):
        result = train(run, recipes[run.set], data[run.set])
        name, config, seed = run.key
        line = {"set": name, "config": config, "seed": seed, "values": run.values, **origin}
        append(file, {**line, **here(), "command": command_of(asked), **result})
        scores = [epoch.get("val/miou", 0.0) for epoch in result["history"]]
        print(
            f"{number} of {len(todo)}: {name} {config} seed {seed}, {max(scores):.3f}", flush=True
        )


def train(run: Run, recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """The history of a run, and the error that ended it before its last epoch."""
    config = recipe.config(run.values, {"seed": run.seed})
    history: list[dict[str, float]] = []
    try:
        for epoch in epochs_of(config, data, started(config, data)):
            history.append(epoch)
    except NonFiniteLossError as error:
        return {"history": history, "error": str(error)}
    return {"history": history}


def planned(asked: argparse.Namespace, recipes: dict[str, Recipe]) -> list[Run]:
    return list(runs(asked.sets, recipes[asked.sets[0]], asked.configs, asked.seeds))


def share(text: str) -> tuple[int, int]:
    """Part and number of parts of "K/N"."""
    part, parts = (int(number) for number in text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError
    return part, parts


def estimate(asked: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Print the CPU hours that the runs will take, after two epochs of each encoder.

    Between nothing and all of the encoder frozen, the cost is taken to lie half-way.
    """
    for root in asked.sets:
        recipe = recipe_of(root, changes)
        data = open_dataset(recipe.base.data)
        seconds: dict[str, float] = {}
        for values, level in itertools.product(recipe.encoder_points(), ("none", "all")):
            config = recipe.config(values, {"encoder.freeze": level})
            history = epochs_of(config, data, started(config, data))
            first, second = (epoch["cpu_s"] for epoch in itertools.islice(history, 2))
            # The first epoch warms up
            seconds[f"{config.encoder.name} frozen {level}"] = second - first
        mean = statistics.mean(seconds.values())
        every = planned(asked, {asked.sets[0]: recipe})
        runs_of_set = sum(run.set == root for run in every)
        each = ", ".join(f"{name} {cost:.2f}" for name, cost in seconds.items())
        print(
            f"{Path(root).name}: CPU s an epoch: {each}. About "
            f"{runs_of_set * asked.epochs * mean / 3600:.1f} core hours for {runs_of_set} runs, "
            f"{asked.configs * asked.epochs * mean / 3600:.1f} of them for one run each.",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "time", "table"])
    parser.add_argument("--sets", nargs="+", default=["mni152"], help="mni152, folders of data")
    parser.add_argument(
        "--out", type=Path, nargs="+", default=[Path("curves.jsonl")], help="the file of runs"
    )
    parser.add_argument("--share", type=share, default=(1, 1), help="K/N: this part of the runs")
    parser.add_argument("--known", type=Path, help="a table: its runs are not repeated, but kept")
    parser.add_argument("--to", type=Path, default=TABLE, help="the table")
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="of each 8th configuration")
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--crop-px", type=int, default=64)
    asked = parser.parse_args()
    changes = {"epochs": asked.epochs, "augment.crop_px": asked.crop_px}
    torch.set_num_threads(1)
    try:
        if asked.what == "table":
            curves = curves_of([line for file in asked.out for line in records(file)])
            if asked.known:
                curves = joined(read_table(asked.known), curves)
            write_table(curves, asked.to)
            return
        os.nice(max(0, NICENESS - os.nice(0)))
        if asked.what == "time":
            estimate(asked, changes)
            return
        file, *more = asked.out
        if more:
            raise UserError("run writes one file: give one with --out.")
        with filelock.FileLock(f"{file}.lock", timeout=0):
            record(asked, file, changes)
    except filelock.Timeout as error:
        sys.exit(f"Another process records to {Path(error.lock_file).stem}.")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
