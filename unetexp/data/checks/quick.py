"""The quick form of the check, at a sweep's start: on what is decoded already, within seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from unetexp.data.cache_folder import cache_folder, write_whole
from unetexp.data.checks.facts import SampleFacts, pixel_facts
from unetexp.data.checks.finding import Finding, Severity
from unetexp.data.checks.rules.duplicates import duplicate_findings, group_findings
from unetexp.data.checks.rules.pictures import picture_findings
from unetexp.data.dataset import Dataset

_VERSION = 2  # increased when the check says something else about the same data
_MOST_COMPARED = 800  # pairs of pictures that are laid over each other, 2 ms each
_LONGEST_PX = 1024  # larger images are thinned out: this is the quick form
_TOLD = (Severity.error, Severity.warning)
_GAP = "gap_slices"  # in the record of a split that was made of blocks for the frames' sake


def quick_check(data: Dataset, budget_s: float = 4.0) -> tuple[str, ...]:
    """What the check warns of, as sentences; at most `budget_s` of reading.

    What does not fit into the time is left out, evenly over the splits, and that is said. A
    complete result is kept in the cache under the data's fingerprint.
    """
    if data.val_in_train:
        return ()  # its splits share images on purpose
    place = cache_folder() / f"{data.fingerprint}.check-{_VERSION}.json"
    kept = _kept(place)
    if kept is not None:
        return kept
    samples, total = _examined(data, budget_s)
    if not samples:
        return ()
    notes = tuple(_sentences(samples, _GAP in data.split_record))
    if len(samples) < total:
        left = f"The quick check looked at {len(samples)} of {total} images"
        return (*notes, f"{left} in its time: `unetexp data check` looks at all of them.")
    _keep(place, notes)
    return notes


def _sentences(samples: Sequence[SampleFacts], in_blocks: bool) -> Iterator[str]:
    findings: list[Finding] = [
        *duplicate_findings(samples, _MOST_COMPARED),
        *group_findings(samples),
        *picture_findings(samples),
    ]
    for finding in findings:
        known = in_blocks and finding.code.startswith("neighbouring-frames")
        if finding.severity in _TOLD and not known:
            yield f"{finding.code}: {finding.title} {finding.why} `unetexp data check` shows more."


def _examined(data: Dataset, budget_s: float) -> tuple[list[SampleFacts], int]:
    """The facts of the samples that fit into the time, and how many there are."""
    order = sorted(
        (number / len(split), name, number)
        for name, split in data.splits.items()
        for number in range(len(split))
    )  # evenly from all splits, so that any first part is a fair one
    samples: list[SampleFacts] = []
    end = time.monotonic() + budget_s
    for _, name, number in order:
        if time.monotonic() > end:
            break
        split = data.splits[name]
        image, mask = split.stored(number)
        step = -(-max(mask.shape) // _LONGEST_PX)
        sample = split.names[number]
        facts = pixel_facts(image[:, ::step, ::step], mask[::step, ::step])
        samples.append(SampleFacts(sample, name, (Path(sample),), Path(sample), pixels=facts))
    return samples, len(order)


def _kept(place: Path) -> tuple[str, ...] | None:
    try:
        notes = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tuple(map(str, notes)) if isinstance(notes, list) else None


def _keep(place: Path, notes: Sequence[str]) -> None:
    text = json.dumps(list(notes))
    with suppress(OSError):  # it is only faster the next time
        write_whole(place, lambda scratch: scratch.write_text(text, encoding="utf-8"))
