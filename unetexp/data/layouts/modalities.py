"""Several files for each image, which are its channels: CT and PET, colour and infrared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unetexp.data.files.pairing import Affix, matched
from unetexp.data.layouts.layout import with_split
from unetexp.data.layouts.scanning import Scan
from unetexp.errors import DataError, listed


@dataclass(frozen=True)
class Modal:
    """The samples: key, a file of each modality or None, and the mask."""

    samples: Sequence[tuple[str, tuple[Path | None, ...], Path]]
    notes: tuple[str, ...]


def several_files(
    scan: Scan, images: Mapping[str, str], masks: str, mask_suffix: str | None, zeros: bool
) -> Modal:
    """The files of each modality, paired by name with the masks.

    With `zeros` a modality may lack a file. Raises DataError for files without a partner.
    """
    found = {name: _by_key(scan, pattern, name) for name, pattern in images.items()}
    every = sorted(set().union(*found.values()))
    partners = {with_split(parts): path for parts, path in scan.named(masks)}
    match = matched(every, partners, mask_suffix)
    if match.lone_images or match.lone_masks:
        what, partner, alone = (
            ("images", "mask", match.lone_images)
            if match.lone_images
            else ("masks", "image", match.lone_masks)
        )
        raise DataError(
            f"{scan.root}: {len(alone)} {what} have no {partner}: {listed(alone)}. Give the files "
            "of one sample the same name in every folder, or remove them."
        )
    lacking = {name: [key for key in every if key not in files] for name, files in found.items()}
    lacking = {name: keys for name, keys in lacking.items() if keys}
    said = "; ".join(f"{name} lacks {listed(keys)}" for name, keys in lacking.items())
    if lacking and not zeros:
        raise DataError(
            f"{scan.root}: {said}. Add these files, or have zeros stand for them: "
            "--set data.missing=zeros."
        )
    channels = " and ".join(images)
    notes = [f"Each image is made of the files of {channels}, in this order."]
    if lacking:
        notes.append(f"Files that are missing are read as zeros: {said}.")
    samples = [
        (name, tuple(files.get(key) for files in found.values()), partners[mask])
        for name, key, mask in match.pairs
    ]
    return Modal(samples, tuple(notes))


def _by_key(scan: Scan, pattern: str, name: str) -> dict[str, Path]:
    """The files of one modality by key, without the modality's name at an end of it."""
    files = {with_split(parts): path for parts, path in scan.named(pattern)}
    for mark in (name, name.upper(), name.lower(), name.capitalize()):
        for affix in (Affix(after=f"_{mark}"), Affix(after=f"-{mark}"), Affix(before=f"{mark}_")):
            stripped = {affix.stripped(key): path for key, path in files.items()}
            if None not in stripped:
                return {key: path for key, path in stripped.items() if key is not None}
    return files
