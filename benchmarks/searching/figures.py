"""What the replays show: device time until close to the best, regret over time; a picture.

Times are counted in trainings: the device seconds of one whole training, mean over the space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.searching.arms import OURS, RANDOM

MOMENTS = (4, 16, 64)  # trainings after which the tables show the regret
Group = dict[str, list[dict[str, Any]]]  # arm -> its replays


def grid(trainings: float) -> list[float]:
    """The times (trainings) at which each replay's regret is kept."""
    return [float(t) for t in np.geomspace(0.25, trainings, 49)]


def groups(found: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, int], Group]]:
    """((set, devices), its replays)."""
    for key in sorted({(record["set"], record["devices"]) for record in found}):
        arms: Group = {}
        for record in found:
            if (record["set"], record["devices"]) == key:
                arms.setdefault(record["arm"], []).append(record)
        yield key, arms


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of observed values; inf: never."""
    lower, middle, upper = np.quantile(values, (0.25, 0.5, 0.75), method="inverted_cdf")
    return float(lower), float(middle), float(upper)


def tables(found: list[dict[str, Any]]) -> None:
    """Print a table for each set and number of devices."""
    for (name, devices), arms in groups(found):
        print(f"\n{name}, {devices} device{'s' if devices > 1 else ''}\n")
        moments = " | ".join(f"regret after {moment}" for moment in MOMENTS)
        print(f"| searcher, stopping | seeds | trainings until close | got close | {moments} |")
        print("|---" * (4 + len(MOMENTS)) + "|")
        for arm, replays in sorted(arms.items(), key=lambda item: _order(item[1])):
            print(_line(arm, replays))


def _reached(replays: list[dict[str, Any]]) -> list[float]:
    return [np.inf if r["reached"] is None else r["reached"] for r in replays]


def _order(replays: list[dict[str, Any]]) -> tuple[float, float]:
    _, middle, upper = quartiles(_reached(replays))
    return middle, upper


def _line(arm: str, replays: list[dict[str, Any]]) -> str:
    reached = _reached(replays)
    horizon = replays[0]["times"][-1]
    lower, middle, upper = (
        f"> {horizon:.0f}" if t == np.inf else f"{t:.1f}" for t in quartiles(reached)
    )
    close = sum(np.isfinite(reached))
    cells = [f"{middle} ({lower} to {upper})", f"{close} of {len(reached)}"]
    for moment in MOMENTS:
        if moment > horizon:
            cells.append("")
            continue
        low, mid, high = quartiles([_at(r, moment) for r in replays])
        cells.append(f"{100 * mid:.2f} ({100 * low:.2f} to {100 * high:.2f})")
    return f"| {arm} | {len(replays)} | {' | '.join(cells)} |"


def _at(replayed: dict[str, Any], trainings: float) -> float:
    """The regret at the last kept time until then."""
    last = sum(time <= trainings * (1 + 1e-9) for time in replayed["times"]) - 1
    return float(replayed["regret"][last])


def plot(found: list[dict[str, Any]], target: Path, shown: list[str] | None) -> None:
    """Median regret over device time, with the quartiles, for the arms that are `shown`."""
    from matplotlib.figure import Figure

    every = list(groups(found))
    figure = Figure(figsize=(5 * len(every), 4), layout="constrained")
    axes = figure.subplots(1, len(every), sharey=True, squeeze=False)[0]
    for axis, ((name, devices), arms) in zip(axes, every, strict=True):
        for arm, replays in arms.items():
            if arm not in (shown or (RANDOM, OURS)):
                continue
            regret = 100 * np.array([r["regret"] for r in replays])
            lower, middle, upper = np.quantile(regret, (0.25, 0.5, 0.75), axis=0)
            axis.plot(replays[0]["times"], middle, label=arm)
            axis.fill_between(replays[0]["times"], lower, upper, alpha=0.2)
        axis.set(xscale="log", yscale="log", xlabel="device time (trainings)")
        axis.set(title=f"{name}, {devices} devices")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("regret (points of mIoU)")
    axes[0].legend()
    figure.savefig(target, dpi=110)
