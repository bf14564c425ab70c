"""`--warm-start`: what a new sweep takes over from earlier ones, by name or `auto`.

By `auto`, trials on the same data with the same epochs and objective are known to the search, and
the best settings of sweeps on other data that is alike are tried first: scores of two data sets
cannot be compared, but what did well on one is a better guess than chance (Feurer et al.,
"Initializing Bayesian Hyperparameter Optimization via Meta-Learning", AAAI 2015; the distance here
is between data sets' few figures that a manifest holds, not learned).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.config.checks import WARM_START_AUTO
from sweeps.config.recipe import Recipe
from sweeps.driver.plan import SweepOptions, SweepPlan, control_folder
from sweeps.driver.resume import find_control, require_sound_ledger
from sweeps.search.warm_start import known_trials
from sweeps.state.ledger import FILE, Ledger, read_ledger
from sweeps.state.manifest import SweepManifest, has_manifest, read_manifest
from sweeps.state.progress import SweepProgress
from sweeps.state.stop_reason import StopReason
from sweeps.state.storage import Storage
from sweeps.text import count, settings
from sweeps.tracking.store import open_existing
from unetexp.data import Dataset
from unetexp.errors import CheckpointError

MOST_FIRST = 3  # settings of other sweeps that are tried first
_FARTHEST = 4.0  # of data that is alike


@dataclass(frozen=True)
class WarmStart:
    """Events for a new sweep's ledger, by name and fields, and the same in words."""

    events: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    sentences: tuple[str, ...] = ()

    def tags(self) -> dict[str, object]:
        """The sentences as a tag of the sweep; none without a warm start."""
        return {"sweep.warm_start": "\n".join(self.sentences)} if self.sentences else {}


NOTHING = WarmStart()


@dataclass(frozen=True)
class _Earlier:
    """An earlier sweep whose files are here and whole."""

    manifest: SweepManifest
    ledger: Ledger = field(repr=False)


def warm_start(plan: SweepPlan, data: Dataset) -> WarmStart:
    """What the planned sweep starts with; nothing unless `--warm-start` is given."""
    asked = plan.options.warm_start
    if asked is None:
        return NOTHING
    if asked != WARM_START_AUTO:
        other = Ledger(find_control(asked, plan.options) / FILE, write=False)
        known = [("known", fields) for fields in known_trials(plan.recipe, other)]
        return WarmStart(tuple(known), (f"knows {count(len(known), 'trial')} of {asked}",))
    events, sentences = [], []
    others = []
    for sweep in _earlier(plan):
        if not _comparable(sweep.manifest, plan.recipe, data):
            others.append(sweep)
            continue
        known = [("known", fields) for fields in known_trials(plan.recipe, sweep.ledger)]
        if known:
            events += known
            trials = count(len(known), "trial")
            sentences.append(f"knows {trials} of {sweep.manifest.name}, on the same data")
    for name, far, values in _best_of_alike(others, plan.recipe, data):
        events.append(("first", {"values": values}))
        sentences.append(f"tries first what was best in {name} ({far}): {settings(values)}")
    return WarmStart(tuple(events), tuple(sentences) or (_nothing(),))


def require_sound_warm_start(options: SweepOptions) -> None:
    """Raise UserError where the sweep of `--warm-start` is missing or its ledger is damaged."""
    if options.warm_start not in (None, WARM_START_AUTO):
        require_sound_ledger(find_control(options.warm_start, options), options)


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How far two data sets are from each other, by their summaries; inf: not alike.

    Channels must be as many, and both sets binary or neither. Then doublings count: of an image's
    area, of the classes, and, half as much, of the training images.
    """
    classes, other_classes = len(one["classes"]), len(other["classes"])
    if one["channels"] != other["channels"] or (classes == 2) != (other_classes == 2):
        return math.inf
    depth = 0.0 if one["image_max"] == other["image_max"] else 1.0
    images = [_train(summary)["images"] for summary in (one, other)]
    return (
        depth
        + _doublings(_area(one), _area(other))
        + _doublings(classes, other_classes)
        + _doublings(*images) / 2
    )


def _earlier(plan: SweepPlan) -> Iterator[_Earlier]:
    """The sweeps of the store that searched something and can be read here, the newest first."""
    store = open_existing(plan.tracking_uri)
    for run in store.sweep_runs() if store else []:
        tags = run.data.tags
        folder = control_folder(Storage(tags["sweep.storage"]), tags["sweep.name"])
        if tags["sweep.name"] != plan.name and has_manifest(folder):
            yield from _read(folder)


def _read(folder: Path) -> Iterator[_Earlier]:
    """The sweep in the folder, unless it is damaged or searched nothing."""
    try:
        manifest = read_manifest(folder)
        damage = read_ledger(folder / FILE).damage
    except (CheckpointError, OSError):
        return
    if damage is None and manifest.recipe.get("space"):
        yield _Earlier(manifest, Ledger(folder / FILE, write=False))


def _comparable(manifest: SweepManifest, recipe: Recipe, data: Dataset) -> bool:
    """Whether the trials' scores mean the same as this sweep's."""
    tree = recipe.tree()
    return (
        manifest.data_fingerprint == data.fingerprint
        and manifest.recipe["base"].get("epochs") == recipe.base.epochs
        and manifest.recipe.get("objective", tree["objective"]) == tree["objective"]
    )


def _best_of_alike(
    sweeps: list[_Earlier], recipe: Recipe, data: Dataset
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(sweep, what is alike, settings) of the nearest sweeps, at most MOST_FIRST that differ."""
    summary = data.summary()
    far = {sweep.manifest.name: distance(sweep.manifest.data, summary) for sweep in sweeps}
    found: list[dict[str, Any]] = []
    for sweep in sorted(sweeps, key=lambda sweep: far[sweep.manifest.name]):
        name = sweep.manifest.name
        values = _best_values(sweep, recipe) if far[name] <= _FARTHEST else {}
        if values and values not in found and len(found) < MOST_FIRST:
            found.append(values)
            yield name, _told(sweep.manifest.data), values


def _best_values(sweep: _Earlier, recipe: Recipe) -> dict[str, Any]:
    """The settings of its best full trial that this recipe's space holds; empty for too few."""
    progress = SweepProgress(trials=0, epochs=0, at_once=1, goals=recipe.goals)
    for event in sweep.ledger.events:
        progress.apply(event)
    full = [trial for trial in progress.ranking if trial.reason is StopReason.COMPLETED]
    if not full:
        return {}
    space = recipe.space
    values = {p: v for p, v in full[0].values.items() if p in space and space[p].admits(v)}
    always = sum(not dimension.when for dimension in space.values())
    return values if len(values) >= max(1, always / 2) else {}


def _told(summary: Mapping[str, Any]) -> str:
    images = count(_train(summary)["images"], "training image")
    return f"{images}, {len(summary['classes'])} classes"


def _nothing() -> str:
    return "no earlier sweep on this data, or on data that is alike, can be read here"


def _train(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the summary says of the training images, or of the first fold."""
    found: Mapping[str, Any] = summary["splits"].get("train") or summary["folds"][0]
    return found


def _area(summary: Mapping[str, Any]) -> float:
    """Pixels of a middling training image."""
    train = _train(summary)
    return math.sqrt(math.prod(train["height_px"]) * math.prod(train["width_px"]))


def _doublings(one: float, other: float) -> float:
    return abs(math.log2(max(1.0, one) / max(1.0, other)))
