"""What the runs of the learning benchmark show, as Markdown tables and a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.curves.arms import PEER
from benchmarks.curves.runs import records


def groups(found: list[dict[str, Any]]) -> dict[tuple, dict[str, list[list[float]]]]:
    """(table, set, encoder, epochs) -> arm -> the curves of val/miou."""
    tables: dict[tuple, dict[str, list[list[float]]]] = {}
    for record in found:
        key = key_of(record)
        curve = [epoch["val/miou"] for epoch in record["history"]]
        tables.setdefault(key, {}).setdefault(record["arm"], []).append(curve)
    return tables


def tables(path: Path) -> None:
    """Print what the file holds."""
    found = records(path)
    for (what, name, encoder, epochs), arms in groups(found).items():
        print(f"\n{what}, {name}, {encoder}, {epochs} epochs\n")
        (defaults_table if what == "defaults" else curves_table)(arms, epochs)
        place = (what, name, encoder, epochs)
        equal_time([record for record in found if key_of(record) == place])


def key_of(record: dict[str, Any]) -> tuple:
    return record["what"], Path(record["set"]).name, record["encoder"], record["epochs"]


def equal_time(found: list[dict[str, Any]]) -> None:
    """Print ours and the peer's scores when the peer's CPU seconds of each seed are spent."""
    curves = {(record["arm"], record["seed"]): record["history"] for record in found}
    ours, theirs = [], []
    for (arm, seed), peer in curves.items():
        own = curves.get(("as it is", seed))
        if arm == PEER and own is not None:
            spent = [epoch["val/miou"] for epoch in own if epoch["cpu_s"] <= peer[-1]["cpu_s"]]
            ours.append(spent[-1])
            theirs.append(peer[-1]["val/miou"])
    if ours:
        print(
            f"\nAt the peer's CPU seconds, mean of {len(ours)} seeds: ours "
            f"{statistics.mean(ours):.3f}, the peer's {statistics.mean(theirs):.3f}."
        )


def defaults_table(arms: dict[str, list[list[float]]], epochs: int) -> None:
    """Mean val/miou over the seeds: half-way, at the end, and the end's spread."""
    print("| changed | seeds | half-way | end | lowest to highest | largest fall |")
    print("|---|---|---|---|---|---|")
    for arm, curves in arms.items():
        half = statistics.mean(curve[epochs // 2 - 1] for curve in curves)
        ends = [curve[-1] for curve in curves]
        print(
            f"| {arm} | {len(ends)} | {half:.3f} | {statistics.mean(ends):.3f} | "
            f"{min(ends):.3f} to {max(ends):.3f} | {max(map(fall, curves)):.3f} |"
        )


def curves_table(arms: dict[str, list[list[float]]], epochs: int) -> None:
    """How well the value at the rung tells the end (Spearman), and how far curves fall after it."""
    rung = -(-epochs // 3)
    print(
        "| arm | trials | best | rank correlation, rung and end: value at the rung | best so far |"
    )
    print("|---|---|---|---|---|")
    for arm, curves in arms.items():
        whole = [curve for curve in curves if len(curve) == epochs]
        ends = [statistics.mean(curve[-2:]) for curve in whole]
        last, best = ([f(c[:rung]) for c in whole] for f in (lambda c: c[-1], max))
        print(
            f"| {arm} | {len(whole)} | {max(map(max, whole)):.3f} | {rank(last, ends):.2f} | "
            f"{rank(best, ends):.2f} |"
        )
    print("\n| arm | largest fall from the rung on | epochs that fall by more than 0.1 |")
    print("|---|---|---|")
    for arm, curves in arms.items():
        falls = [value for curve in curves for value in falls_from(curve, rung)]
        print(f"| {arm} | {max(falls):.3f} | {sum(f > 0.1 for f in falls)} of {len(falls)} |")


def rank(a: list[float], b: list[float]) -> float:
    return float(stats.spearmanr(a, b).statistic) if len(a) > 2 else float("nan")


def falls_from(curve: list[float], rung: int) -> list[float]:
    """How far each epoch from the rung on is below the best before it."""
    best = np.maximum.accumulate(curve)
    return [float(best[i - 1] - curve[i]) for i in range(max(rung - 1, 1), len(curve))]


def fall(curve: list[float]) -> float:
    """The largest fall below the best before, from a third of the epochs on."""
    return max(falls_from(curve, -(-len(curve) // 3)))


def plot(path: Path, target: Path) -> None:
    """The curves of before and of now, side by side."""
    from matplotlib.figure import Figure

    found = {key: arms for key, arms in groups(records(path)).items() if key[0] == "curves"}
    figure = Figure(figsize=(9, 3.2 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, sharey="row", squeeze=False)
    for row, ((_, name, encoder, epochs), arms) in zip(axes, found.items(), strict=True):
        for axis, arm in zip(row, ("before", "now"), strict=True):
            for curve in arms.get(arm, []):
                axis.plot(range(1, epochs + 1), curve, linewidth=1)
            axis.set(title=f"{name}, {encoder}: {arm}", xlabel="epoch", ylabel="val/miou")
            axis.grid(alpha=0.3)
    figure.savefig(target, dpi=110)
