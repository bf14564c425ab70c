"""The files of a layout, and how they pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unetexp.data.files.pairing import Match, matched, matched_by_words, matched_together


@dataclass(frozen=True)
class Files:
    """Files by key, `split:/key` where folders name the split, and how they pair."""

    images: dict[str, Path]
    masks: dict[str, Path]
    match: Match
    choices: tuple[Match, ...] = ()  # other ways to pair them that leave nothing alone either
    repeated: tuple[Path, Path] | None = None  # two files of one name


def paired(
    images: Sequence[tuple[str, Path]], masks: Sequence[tuple[str, Path]], mask_suffix: str | None
) -> Files:
    """Files of folders of their own, by key."""
    image_files, mask_files = dict(images), dict(masks)
    match = matched(image_files, mask_files, mask_suffix)
    if not match.complete and any(map(_is_ome, (*images, *masks))):
        return paired(_without_ome(images), _without_ome(masks), mask_suffix)
    choices: tuple[Match, ...] = ()
    if match.lone_masks and mask_suffix is None:
        choices = several_masks(image_files, mask_files)
    return Files(image_files, mask_files, match, choices, _repeated(images) or _repeated(masks))


def several_masks(images: dict[str, Path], masks: dict[str, Path]) -> tuple[Match, ...]:
    """Where every image has several masks, told apart by their endings: each ending's pairs."""
    endings = {
        mask[len(image) :] for image in list(images)[:1] for mask in masks if mask.startswith(image)
    }
    found = [matched(images, masks, ending) for ending in sorted(endings) if ending]
    chosen = tuple(match for match in found if match.complete)
    return chosen if len(chosen) > 1 else ()


def paired_together(found: Sequence[tuple[str, Path]], mask_suffix: str | None) -> Files:
    """Files of one folder, by key: a photograph as JPEG with its mask as PNG, or by affix."""
    files = _paired_together(found, mask_suffix)
    if not files.match.complete and any(map(_is_ome, found)):
        return _paired_together(_without_ome(found), mask_suffix)
    return files


def _is_ome(file: tuple[str, Path]) -> bool:
    """Whether a file is named .ome.tif, which is one extension."""
    key, path = file
    return key.lower().endswith(".ome") and path.suffix.lower() in (".tif", ".tiff")


def _without_ome(found: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    return [(each[0][: -len(".ome")] if _is_ome(each) else each[0], each[1]) for each in found]


def _paired_together(found: Sequence[tuple[str, Path]], mask_suffix: str | None) -> Files:
    by_ending = _told_apart_by_ending(found)
    if by_ending is not None and mask_suffix is None:
        return paired(*by_ending, None)
    files = dict(found)
    whole, partial = matched_together(files, mask_suffix)
    if mask_suffix is None and not whole:
        by_words = matched_by_words(files)
        whole = [match for match in by_words if match.complete][:1]
        partial = [*partial, *by_words]
    best = min(
        whole or partial,
        key=lambda match: len(match.lone_images) + len(match.lone_masks),
        default=Match((), sorted(files)),
    )
    return Files(files, files, best, tuple(whole) if len(whole) > 1 else (), _repeated(found))


def _told_apart_by_ending(
    found: Sequence[tuple[str, Path]],
) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]]] | None:
    photographs = [(key, p) for key, p in found if p.suffix.lower() in (".jpg", ".jpeg")]
    others = [(key, p) for key, p in found if p.suffix.lower() not in (".jpg", ".jpeg")]
    if photographs and sorted(k for k, _ in photographs) == sorted(k for k, _ in others):
        return photographs, others
    return None


def _repeated(found: Sequence[tuple[str, Path]]) -> tuple[Path, Path] | None:
    seen: dict[str, Path] = {}
    for key, path in found:
        if key in seen:
            return path, seen[key]
        seen[key] = path
    return None
