"""A sweep whose space grows or narrows when it is resumed, its earlier trials valid evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from sweeps.config.recipe import Recipe
from sweeps.config.space import Dimension, Space
from sweeps.search.evidence import in_space
from sweeps.state.ledger import Event, now_s
from sweeps.state.manifest import SweepManifest
from sweeps.text import count

TAG = "sweep.grown"  # of the sweep's run: when, and how its space changed


@dataclass(frozen=True)
class Growth:
    """A change of a sweep's space after some of its trials."""

    changes: tuple[str, ...]  # of its dimensions, one line each
    earlier: int  # trials that were proposed before
    evidence: int  # those among them that are in the new space
    first: tuple[Mapping[str, Any], ...]  # points to be tried next
    before: str  # the recipe until then, as YAML

    def describe(self) -> list[str]:
        """The change, and what the trials so far are worth, in lines."""
        outside = self.earlier - self.evidence
        lies = "lies" if outside == 1 else "lie"
        rest = (
            f"; {outside} {lies} outside the new space: kept in the table, not told to the search"
            if outside
            else ""
        )
        counted = f"{self.evidence} of {count(self.earlier, 'earlier trial')} count as evidence"
        return [*self.changes, counted + rest]

    def record(self) -> dict[str, Any]:
        """As it stands in the manifest and in the ledger."""
        return {
            "changes": list(self.changes),
            "earlier": self.earlier,
            "evidence": self.evidence,
            "first": [dict(point) for point in self.first],
            "grown_at": now_s(),
        }


def growth_of(
    before: Recipe, after: Recipe, events: Sequence[Event], points: Sequence[Mapping[str, Any]]
) -> Growth:
    """The growth from one recipe to another after `events`; `points` are the new ones' first."""
    proposed = [event["values"] for event in events if event["event"] == "trial"]
    fitting = sum(in_space(after, values) is not None for values in proposed)
    pending = [p for p in _waiting(before, events) if _admitted(after.space, p)]
    new = [point for point in points if point not in before.points and point not in pending]
    return Growth(
        changes=_changes(before.space, after.space),
        earlier=len(proposed),
        evidence=fitting,
        first=(*pending, *new),
        before=yaml.safe_dump(before.tree(), sort_keys=False),
    )


def missing_records(manifest: SweepManifest, events: Sequence[Event]) -> list[dict[str, Any]]:
    """The growths in the manifest that the ledger lacks, as after a kill between the two."""
    recorded = sum(event["event"] == "grown" for event in events)
    return manifest.growths[recorded:]


def tag_of(manifest: SweepManifest) -> dict[str, object]:
    """The growths as a tag of the sweep's run; none without one."""
    lines = [
        f"after {count(growth['earlier'], 'trial')}, of which {growth['evidence']} count: "
        + "; ".join(growth["changes"])
        for growth in manifest.growths
    ]
    return {TAG: "\n".join(lines)} if lines else {}


def _waiting(recipe: Recipe, events: Sequence[Event]) -> list[Mapping[str, Any]]:
    """First points of the recipe, of a warm start or of a growth that were not proposed yet."""
    first: list[Mapping[str, Any]] = list(recipe.points)
    tried = 0
    for event in events:
        match event["event"]:
            case "trial":
                tried += 1
            case "first":
                first.append(event["values"])
            case "grown":
                first = [{}] * tried + event["first"]
    return first[tried:]


def _admitted(space: Space, point: Mapping[str, Any]) -> bool:
    return all(path in space and space[path].admits(value) for path, value in point.items())


def _changes(before: Space, after: Space) -> tuple[str, ...]:
    lines = []
    for path in dict.fromkeys([*before, *after]):
        old, new = _text(before.get(path)), _text(after.get(path))
        if old != new:
            lines.append(f"{path}: {old} -> {new}")
    return tuple(lines)


def _text(dimension: Dimension | None) -> str:
    if dimension is None:
        return "not searched"
    when = ", ".join(f"{path}={value}" for path, value in dimension.when.items())
    return dimension.describe() + (f" (when {when})" if when else "")
