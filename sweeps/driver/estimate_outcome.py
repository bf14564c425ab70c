"""What a sweep was estimated to take, compared with what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sweeps.state.ledger import Event
from sweeps.state.manifest import SweepManifest
from sweeps.text import spelled_duration

ESTIMATED, TOOK = "sweep.estimated_s", "sweep.took_s"  # tags of the sweep's run


@dataclass(frozen=True)
class EstimateOutcome:
    """Seconds of wall time, without the pauses between the drivers of a resumed sweep."""

    estimated_s: float
    took_s: float

    def describe(self) -> str:
        """For the terminal: `estimated 3 min, took 3 min 20 s`."""
        estimated, took = spelled_duration(self.estimated_s), spelled_duration(self.took_s)
        return f"estimated {estimated}, took {took}"

    def tags(self) -> dict[str, object]:
        return {ESTIMATED: round(self.estimated_s, 1), TOOK: round(self.took_s, 1)}


def estimate_outcome(
    manifest: SweepManifest, events: Sequence[Event], now: float
) -> EstimateOutcome | None:
    """The outcome at the sweep's end; None where nothing was estimated."""
    if manifest.estimated_s is None:
        return None
    return EstimateOutcome(manifest.estimated_s, _driven_s(manifest.driver_starts, events, now))


def _driven_s(starts: Sequence[float], events: Sequence[Event], now: float) -> float:
    """Seconds that drivers ran: each from its start to the last event before the next one's."""
    total = now - starts[-1]
    for start, following in pairwise(starts):
        seen = [event["at"] for event in events if start <= event["at"] < following]
        total += max(seen, default=start) - start
    return total
