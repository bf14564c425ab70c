"""Replays searchers and stopping rules on recorded learning curves, in seconds a sweep.

    python benchmarks/search.py validate                          how well curves are interpolated
    python benchmarks/search.py run --out replays.jsonl           100 seeds of each arm
    python benchmarks/search.py tables --out replays.jsonl
    python benchmarks/search.py confirm                           what further seeds are worth
    python benchmarks/search.py plot --out replays.jsonl --to regret.png

The table, `benchmarks/curves/curves.parquet`, comes from `benchmarks/curves/record.py`. A replay is
a whole sweep through the conductor that real sweeps use, on 1, 4 or 16 virtual devices: a trial has
its device for the seconds that its epochs took when they were recorded, and its scores are those of
the table, interpolated, with the noise of seeds. The file has one JSON line a replay; those that it
holds are not repeated. Seeds are the outer loop, so that the tables can be printed at any time.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.curves.curve_table import TABLE, read_table  # noqa: E402
from benchmarks.curves.plan import drawn  # noqa: E402
from benchmarks.curves.runs import append, records  # noqa: E402
from benchmarks.searching.arms import ARMS, SLOW  # noqa: E402
from benchmarks.searching.confirming import choices, table  # noqa: E402
from benchmarks.searching.figures import grid, plot, tables  # noqa: E402
from benchmarks.searching.first_points import FIRST  # noqa: E402
from benchmarks.searching.growing import GROWING, replay_growing  # noqa: E402
from benchmarks.searching.landscape import Landscape  # noqa: E402
from benchmarks.searching.replay import MemoryLedger, replay  # noqa: E402
from benchmarks.searching.surrogates import SURROGATES  # noqa: E402
from unetexp.errors import UserError, not_a_choice  # noqa: E402

KEY = ("set", "surrogate", "trainings", "arm", "devices", "seed")  # what names a replay
_FEW, _NEW_SEEDS = 5, 4  # trials that are confirmed, and with how many seeds
_DRAWS = 1024  # to see how many configurations are close to the best


@functools.cache
def landscape_of(table: Path, of_set: str, surrogate: str) -> Landscape:
    return Landscape(read_table(table), of_set, surrogate)


def one(table: Path, key: tuple[Any, ...]) -> dict[str, Any]:
    """The record of a replay."""
    of_set, surrogate, trainings, arm, devices, seed = key
    landscape = landscape_of(table, of_set, surrogate)
    unit = landscape.training_s
    if arm in GROWING:
        keeps, time = GROWING[arm], trainings * unit
        found = replay_growing(landscape, devices, time, seed, keeps=keeps)
    else:
        recipe = landscape.recipe
        if first := ARMS[arm].first:
            points = FIRST[first](read_table(table), of_set, recipe)
            recipe = recipe.model_copy(update={"points": points})
        controller = ARMS[arm].controller(recipe, seed, MemoryLedger(), devices, unit)
        found = replay(controller, landscape, devices, trainings * unit, seed)
    reached = None if found.reached_s is None else found.reached_s / unit
    times = grid(trainings)
    regret = [found.regret_at(time * unit, landscape.best) for time in times]
    counts = {"trials": found.trials, "epochs": found.epochs, "full": found.full}
    named = dict(zip(KEY, key, strict=True))
    return {**named, **counts, "reached": reached, "times": times, "regret": regret}


def run(asked: argparse.Namespace) -> None:
    """Do the replays that the file does not hold."""
    names = asked.arms or [arm for arm in (*ARMS, *GROWING) if arm not in SLOW]
    for name in names:
        if name not in (*ARMS, *GROWING):
            raise UserError(not_a_choice("--arms", name, [*ARMS, *GROWING]))
    sets = asked.sets or read_table(asked.table).sets
    rest = (sets, [asked.surrogate], [asked.trainings], names, asked.devices)
    keys = [(*key, seed) for seed in range(asked.seeds) for key in itertools.product(*rest)]
    done = {tuple(record[name] for name in KEY) for record in records(asked.out)}
    todo = [key for key in keys if key not in done]
    print(f"{len(todo)} of {len(keys)} replays are to do", flush=True)
    replayed = functools.partial(one, asked.table)
    if asked.jobs == 1:
        for key in todo:
            append(asked.out, replayed(key))
        return
    with ProcessPoolExecutor(asked.jobs) as pool:
        for record in pool.map(replayed, todo):
            append(asked.out, record)


def validate(asked: argparse.Namespace) -> None:
    """Print what each set's landscape is like, and how well each surrogate foretells it."""
    curves = read_table(asked.table)
    for of_set in asked.sets or curves.sets:
        landscape = landscape_of(asked.table, of_set, asked.surrogate)
        close = landscape.close_share(drawn(landscape.recipe, _DRAWS))
        print(
            f"\n{of_set}: {len(landscape.configurations)} configurations, "
            f"{len(landscape.repeats.ends)} repeated runs; best {landscape.best:.3f} "
            f"({asked.surrogate}); {100 * close:.1f} % of the space is within half a point of it; "
            f"a training takes {landscape.training_s:.0f} device seconds\n"
        )
        print("| surrogate | leave-one-out rank correlation of best scores |\n|---|---|")
        for name, correlation in landscape.validation().items():
            print(f"| {name} | {correlation:.3f} |")


def confirm(asked: argparse.Namespace) -> None:
    """Print what choosing by further seeds costs and gains, for each set."""
    for of_set in asked.sets or read_table(asked.table).sets:
        landscape = landscape_of(asked.table, of_set, asked.surrogate)
        found = [
            choice
            for seed in range(asked.seeds)
            for choice in choices(landscape, asked.trainings, seed, _FEW, _NEW_SEEDS)
        ]
        print(f"\n{of_set}, after {asked.trainings:g} trainings\n\n{table(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["validate", "run", "tables", "plot", "confirm"])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--out", type=Path, default=Path("replays.jsonl"), help="the replays")
    parser.add_argument("--to", type=Path, default=Path("regret.png"), help="the picture")
    parser.add_argument("--sets", nargs="+", help="of the table; default: all")
    parser.add_argument("--arms", nargs="+", help="these alone, by the names in the tables")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--trainings", type=float, default=64.0, help="device time, in whole trainings"
    )
    parser.add_argument("--surrogate", choices=SURROGATES, default="forest")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    asked = parser.parse_args()
    try:
        if asked.what == "run":
            run(asked)
        elif asked.what == "validate":
            validate(asked)
        elif asked.what == "confirm":
            confirm(asked)
        elif asked.what == "tables":
            tables(records(asked.out))
        else:
            plot(records(asked.out), asked.to, asked.arms)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
