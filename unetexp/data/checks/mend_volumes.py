"""A copy of volumes without those that are to be left out whole."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from unetexp.data.checks.facts import SampleFacts
from unetexp.data.volumes.description import FILE


def copy_volumes(
    root: Path, samples: Sequence[SampleFacts], dropped: Mapping[int, str], place: Path
) -> list[str]:
    """Copy volumes and labels to the same places in `place`; what was done, one sentence each.

    A volume is left out if all its slices are. Raises OSError.
    """
    slices: dict[Path, list[int]] = {}
    for number, sample in enumerate(samples):
        slices.setdefault(sample.mask, []).append(number)
    whole = [label for label, own in slices.items() if all(n in dropped for n in own)]
    done: Counter[str] = Counter(dropped[slices[label][0]] for label in whole)
    kept = [label for label in slices if label not in whole]
    for label in kept:
        for path in (*samples[slices[label][0]].images, label):
            target = place / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    if kept and (root / FILE).is_file():
        shutil.copyfile(root / FILE, place / FILE)
    told = [f"{len(kept)} of {len(slices)} volumes were copied"]
    told += [f"{count} volumes: {what}" for what, count in done.items()]
    stay = [number for label in kept for number in slices[label] if number in dropped]
    if stay:
        told.append(
            f"{len(stay)} slices stay, because the rest of their volumes is kept (such as "
            f"{samples[stay[0]].name}, to be {dropped[stay[0]]}): data.keep_empty and "
            "data.min_foreground leave out slices without foreground"
        )
    return told
