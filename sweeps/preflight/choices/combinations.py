"""Precision, layout, threads and trials at once, chosen by what training steps take with them.

Every combination is timed in turn, round after round, and its least time counts: other work on
the machine only ever makes a step slower. Those far behind get no further round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.preflight.smoke_test import SIDE_PX
from sweeps.preflight.step_cost import Size
from unetexp.compute.measured import Measured, TimedStep, wording
from unetexp.compute.settings import ComputeSettings

PATIENCE_S = 20.0
_MOST_AT_ONCE = 4  # more trials at once teach TPE less, and each takes memory
_GLANCE = 1.4  # times the fastest on small crops: slower settings are left out
_MARGINS = (1.6, 1.25, 1.12, 1.12)  # times the fastest, after each round: slower ways drop out
_WORTH = 1.03  # what more trials at once must gain: they teach TPE less

# (settings, at once, threads, size) -> seconds of a step, infinite where it fails
TimeStep = Callable[[ComputeSettings, int, int, Size], float]


@dataclass(frozen=True)
class Way:
    """Settings, and how the machine is shared."""

    settings: ComputeSettings
    at_once: int
    threads: int


@dataclass(frozen=True)
class Model:
    """What is measured: which settings there are, and what they are compared within."""

    decoder: str
    candidates: Sequence[ComputeSettings]
    searched: frozenset[str] = frozenset()  # fields of the settings: each value stays in
    encoder: str | None = None  # its name


def ways_to_share(cores: int, peak_bytes: int, free_bytes: int, trials: int) -> dict[int, int]:
    """Trials at once -> threads of each: all that use the cores and fit into memory."""
    counts = (1 << power for power in range(_MOST_AT_ONCE.bit_length()))
    return {
        count: cores // count
        for count in counts
        if count == 1 or (count <= min(cores, trials) and count * peak_bytes <= free_bytes)
    }


def measure(
    device: str,
    model: Model,
    shares: Mapping[int, int],
    size: Size,
    time_step: TimeStep,
    *,
    beside_s: float = 0.0,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
) -> Measured | None:
    """Time the steps of `model`, and choose how many trials at once; None where no step succeeds.

    `shares` are trials at once with the threads of each. `beside_s` is what a trial takes beside
    its steps, in seconds a step: while one does that, others can compute.
    """
    until = clock() + patience_s
    sound = _at_a_glance(model, shares, size, time_step)
    ways = [Way(one, *share) for share in shares.items() for one in sound]
    taken = _rounds(ways, size, time_step, model.searched, lambda: clock() < until)
    steps = tuple(
        TimedStep(way.settings, way.at_once, way.threads, step_s)
        for way, step_s in taken.items()
        if math.isfinite(step_s)
    )
    if not steps:
        return None
    timed = {step.settings for step in steps}
    return Measured(
        device,
        model.decoder,
        size.images,
        size.side_px,
        _trials_at_once(steps, beside_s),
        steps,
        tuple(one for one in model.candidates if one not in timed),
        beside_s,
        encoder=model.encoder,
    )


def affordable(full: Size, step_s: float, steps: int, patience_s: float = PATIENCE_S) -> Size:
    """`full`, or fewer images, or smaller crops, where so many steps would take too long.

    `step_s` is what a step on `full` takes.
    """
    sizes = [full]
    while sizes[-1].images > 2:
        sizes.append(Size(full.side_px, max(2, sizes[-1].images // 2)))
    while sizes[-1].side_px >= 2 * SIDE_PX:
        sizes.append(Size(sizes[-1].side_px // 2, sizes[-1].images))
    seconds = {size: step_s * size.pixels / full.pixels * steps for size in sizes}
    return next((size for size in sizes if seconds[size] <= patience_s), sizes[-1])


def describe(measured: Measured, cores: int, full: Size) -> list[str]:
    """What was chosen, with the figures of what was not."""
    best, *others = measured.of_choice
    listed = [f"{wording(step.settings)} {step.step_s:.3g}" for step in others]
    if measured.left_out:
        names = " and ".join(map(wording, measured.left_out))
        listed.append(f"{names} not timed: far slower on small crops, or failing")
    size = Size(measured.side_px, measured.images)
    on = "" if size == full else f", on {size.images} images of {size.side_px} px"
    lines = [
        f"{wording(best.settings)}: {best.step_s:.3g} s a step{on}"
        + (f" ({', '.join(listed)})" if listed else "")
    ]
    shares = sorted({(step.at_once, step.threads) for step in measured.steps})
    if len(shares) > 1:
        rates = {share: measured.images_per_s(share[0]) for share in shares}
        chosen = (best.at_once, best.threads)
        rest = ", ".join(
            f"{_shared(*share)} {rate:.3g}" for share, rate in rates.items() if share != chosen
        )
        lines.append(
            f"{_shared(*chosen)} on {cores} cores: {rates[chosen]:.3g} images/s of all trials "
            f"({rest})"
        )
    if measured.compiling:
        lines.append(measured.compiling.describe())
    return lines


def _shared(at_once: int, threads: int) -> str:
    return f"{at_once} at once with {threads} thread{'' if threads == 1 else 's'}"


def _at_a_glance(
    model: Model, shares: Mapping[int, int], size: Size, time_step: TimeStep
) -> list[ComputeSettings]:
    """The candidates without those of a precision that is far slower on small crops already.

    A CPU that has no instructions for one may take 50 times as long with it.
    """
    small = Size(min(SIDE_PX, size.side_px), min(2, size.images))
    precisions = {one.precision for one in model.candidates}
    if len(precisions) == 1 or "precision" in model.searched or small.pixels >= size.pixels:
        return list(model.candidates)
    threads = min(shares.values())
    taken = dict.fromkeys(precisions, math.inf)
    for _ in range(2):
        for one in model.candidates:
            step_s = time_step(one, 1, threads, small)
            taken[one.precision] = min(taken[one.precision], step_s)
    slowest = _GLANCE * min(taken.values())
    return [one for one in model.candidates if taken[one.precision] <= slowest]


def _rounds(
    ways: Sequence[Way],
    size: Size,
    time_step: TimeStep,
    searched: frozenset[str],
    in_time: Callable[[], bool],
) -> dict[Way, float]:
    """The least seconds of each way; each is timed once, those ahead more often while in time."""
    taken = dict.fromkeys(ways, math.inf)
    racing = list(ways)
    for number, margin in enumerate(_MARGINS):
        for way in racing:
            if number > 0 and not in_time():
                return taken
            step_s = time_step(way.settings, way.at_once, way.threads, size)
            taken[way] = min(taken[way], step_s)
        racing = _near(racing, taken, margin, searched)[::-1]  # what drifts meets each alike
    return taken


def _near(
    ways: Iterable[Way], taken: Mapping[Way, float], margin: float, searched: frozenset[str]
) -> list[Way]:
    """The ways within `margin` times the seconds an image of the best; of each searched value."""
    groups: dict[tuple[object, ...], list[Way]] = {}
    for way in ways:
        values = tuple(getattr(way.settings, name) for name in sorted(searched))
        groups.setdefault(values, []).append(way)
    near = []
    for group in groups.values():
        best = min(taken[way] / way.at_once for way in group)
        near += [way for way in group if taken[way] / way.at_once <= margin * best]
    return [way for way in near if math.isfinite(taken[way])]


def _trials_at_once(steps: Sequence[TimedStep], beside_s: float) -> int:
    """The fewest trials at once that nearly reach the most steps a second."""
    rates: dict[int, float] = {}
    for step in steps:
        rate = step.at_once / (step.step_s + beside_s)
        rates[step.at_once] = max(rate, rates.get(step.at_once, 0.0))
    most = max(rates.values())
    return min(at_once for at_once, rate in rates.items() if rate * _WORTH >= most)
