"""Which mask belongs to which image, by their names alone.

A key is a file's place below its folder without the extension, such as `site1/007`. A mask has its
image's key, or the same with one affix that all masks share, as in `007_mask`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

IMAGE_WORDS = ("image", "images", "img", "im", "rgb", "photo", "input", "sat", "leftImg8bit")
MASK_WORDS = (
    *("mask", "masks", "segmentation", "segmentations", "seg", "segm", "label", "labels"),
    *("lbl", "gt", "groundtruth", "ground_truth", "annotation", "anno", "ann", "annot"),
    *("target", "trimap", "matte", "L", "gtFine_labelIds"),
)
_SEPARATORS = "_-. "
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Affix:
    """What stands before and after the name that an image and its mask share."""

    before: str = ""
    after: str = ""

    def stripped(self, key: str) -> str | None:
        """The key without it; None where the key does not have it or nothing is left."""
        folder, slash, name = key.rpartition("/")
        if len(name) <= len(self.before) + len(self.after):
            return None
        if not (name.startswith(self.before) and name.endswith(self.after)):
            return None
        return f"{folder}{slash}{name[len(self.before) : len(name) - len(self.after)]}"

    def added(self, key: str) -> str:
        """The key with it."""
        folder, slash, name = key.rpartition("/")
        return f"{folder}{slash}{self.before}{name}{self.after}"

    def describe(self) -> str:
        """The affix in words, such as `end in _mask`."""
        words = [f"begin with {self.before}"] if self.before else []
        return " and ".join(words + ([f"end in {self.after}"] if self.after else []))


NONE = Affix()


@dataclass(frozen=True)
class Match:
    """Images and masks of the same name, and those that are alone; all by their keys."""

    pairs: Sequence[tuple[str, str, str]]  # the shared name, the image's key, the mask's key
    lone_images: Sequence[str] = ()
    lone_masks: Sequence[str] = ()
    image_affix: Affix = NONE
    mask_affix: Affix = NONE
    left_out: Sequence[str] = ()  # other masks of the images in pairs

    @property
    def complete(self) -> bool:
        """Whether nothing is alone."""
        return bool(self.pairs) and not self.lone_images and not self.lone_masks


def matched(
    images: Collection[str], masks: Collection[str], mask_suffix: str | None = None
) -> Match:
    """The pairs of images and masks that lie in folders of their own.

    Equal names come first, then one affix that all masks have, a known or, where there are
    several, any; the one that leaves nothing alone, else the one that leaves least.
    """
    if mask_suffix is not None:
        ending = Affix(after=mask_suffix)
        meant = [key for key in masks if ending.stripped(key) is not None]
        return min(
            (_match(images, meant, affix, ending) for affix in _shared(images, IMAGE_WORDS)),
            key=_alone,
        )
    best = _match(images, masks, NONE, NONE)
    for image_affix in _shared(images, IMAGE_WORDS):
        for mask_affix in (*_shared(masks, MASK_WORDS), *_any_shared(masks)):
            if best.complete:
                return best
            best = min(best, _match(images, masks, image_affix, mask_affix), key=_alone)
    return best


def matched_together(
    keys: Collection[str], mask_suffix: str | None = None
) -> tuple[list[Match], list[Match]]:
    """The ways to pair images and masks of one folder: those that leave nothing alone, and others.

    Several of the first kind are several masks for each image, of which one is meant.
    """
    affixes = list(dict.fromkeys(_affixes_within(keys)))
    if mask_suffix is not None:
        affixes = [Affix(after=mask_suffix)]
    matches = []
    known = set(keys)
    for affix in affixes:
        named = {key: affix.stripped(key) for key in keys}
        masks = {key for key, name in named.items() if name in known}
        if mask_suffix is not None:  # those without an image are masks as well
            masks = {key for key, name in named.items() if name is not None}
        images = known - masks
        if masks:
            named_images = [NONE] if mask_suffix is None else _shared(images, IMAGE_WORDS)
            match = min((_match(images, masks, a, affix) for a in named_images), key=_alone)
            matches.append(match if mask_suffix is None else _without_others(match, keys))
    whole = [match for match in matches if match.complete and _is_plain(match)]
    if whole or len(matches) < 2:
        return whole, matches
    return _several_masks(known, matches), matches


def matched_by_words(keys: Collection[str]) -> list[Match]:
    """The ways to pair files of one folder that all have a known word, as 0_sat with 0_mask.

    Those that leave nothing alone, else all.
    """
    known = set(keys)
    first, found = min(known, default=""), []
    for image_affix, mask_affix in _known_affixes(first, known):
        masks = {key for key in known if mask_affix.stripped(key) is not None}
        images = known - masks
        found.append(_match(images, masks, image_affix, mask_affix))
    return [match for match in found if match.complete] or found


def _known_affixes(key: str, keys: set[str]) -> Iterator[tuple[Affix, Affix]]:
    """The affixes of images and of masks that `key` and its partner have."""
    of_images, of_masks = _spelled(IMAGE_WORDS), _spelled(MASK_WORDS)
    for own, others, swapped in ((of_images, of_masks, False), (of_masks, of_images, True)):
        for affix in own:
            name = affix.stripped(key)
            for other in others if name is not None else ():
                if name is not None and other.added(name) in keys:
                    yield (other, affix) if swapped else (affix, other)


def _without_others(match: Match, keys: Collection[str]) -> Match:
    """The match without lone images that are other masks of the paired ones."""
    paired = {image for _, image, _ in match.pairs}
    others = {
        key
        for affix in set(_affixes_within(keys))
        for key in match.lone_images
        if affix.stripped(key) in paired
    }
    lone = [key for key in match.lone_images if key not in others]
    return replace(match, lone_images=lone, left_out=sorted(others))


def _several_masks(keys: set[str], matches: Sequence[Match]) -> list[Match]:
    """Matches of the same images by different affixes, which together use every key."""
    masks = {mask for match in matches for _, _, mask in match.pairs}
    images = keys - masks
    chosen = []
    for match in matches:
        pairs = [pair for pair in match.pairs if pair[1] in images]
        if {pair[1] for pair in pairs} == images and images and _is_plain(match):
            chosen.append(Match(pairs, mask_affix=match.mask_affix))
    return chosen if len(chosen) > 1 else []


def _is_plain(match: Match) -> bool:
    """Whether the affix is a known one, or enough pairs have it to be no coincidence."""
    affix = match.mask_affix
    word = (affix.before or affix.after).strip(_SEPARATORS)
    return len(match.pairs) != 1 or word.lower() in [known.lower() for known in MASK_WORDS]


def _match(
    images: Collection[str], masks: Collection[str], image_affix: Affix, mask_affix: Affix
) -> Match:
    named = {name: key for key in images if (name := image_affix.stripped(key)) is not None}
    partners = {name: key for key in masks if (name := mask_affix.stripped(key)) is not None}
    return Match(
        [(name, named[name], partners[name]) for name in sorted(named.keys() & partners.keys())],
        sorted(key for key in images if image_affix.stripped(key) not in partners),
        sorted(key for key in masks if mask_affix.stripped(key) not in named),
        image_affix,
        mask_affix,
    )


def _alone(match: Match) -> int:
    return len(match.lone_images) + len(match.lone_masks)


def _shared(keys: Collection[str], words: Sequence[str]) -> list[Affix]:
    """No affix, and each that is made of a known word and that all `keys` have."""
    candidates = [NONE, *_spelled(words)]
    return [each for each in candidates if all(each.stripped(key) is not None for key in keys)]


def _spelled(words: Sequence[str]) -> list[Affix]:
    """The affixes that are made of `words`."""
    affixes = []
    for word in words:
        for spelled in dict.fromkeys((word, word.lower(), word.capitalize(), word.upper())):
            for separator in _SEPARATORS:
                affixes += [Affix(after=separator + spelled), Affix(before=spelled + separator)]
    return affixes


def _any_shared(keys: Collection[str]) -> Iterator[Affix]:
    """Affixes of letters, set off by a separator, that all of several `keys` have."""
    names = [key.rpartition("/")[2] for key in keys]
    if len(names) < 2:
        return
    first = names[0]
    for place, char in enumerate(first):
        for affix in (Affix(after=first[place:]), Affix(before=first[: place + 1])):
            if (
                char in _SEPARATORS
                and _LETTER.search(affix.before + affix.after)
                and all(affix.stripped(key) is not None for key in keys)
            ):
                yield affix


def _affixes_within(keys: Collection[str]) -> Iterator[Affix]:
    """What one of the keys has more than another, set off by a separator."""
    known = set(keys)
    for key in keys:
        folder, slash, name = key.rpartition("/")
        for place, char in enumerate(name):
            if char not in _SEPARATORS:
                continue
            if f"{folder}{slash}{name[:place]}" in known and _LETTER.search(name[place:]):
                yield Affix(after=name[place:])
            if f"{folder}{slash}{name[place + 1 :]}" in known and _LETTER.search(name[:place]):
                yield Affix(before=name[: place + 1])
