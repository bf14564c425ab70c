"""Whether the palettes of the masks of a set agree, so that their indices can be class numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unetexp.data.label_values.label_map import hex_colour
from unetexp.data.reading.mask_values import GREY, MaskValues


def palette_clash(masks: Sequence[MaskValues], files: Sequence[str]) -> str:
    """How two palettes contradict each other, in words; empty where none does.

    A colour in two places counts where each palette has every colour once only.
    """
    colour_of: dict[int, tuple[int, str]] = {}
    index_of: dict[int, tuple[int, str]] = {}
    distinct = all(len(set(mask.palette)) == len(mask.palette) for mask in masks)
    for index, colour, file in _used(masks, files):
        other, where = colour_of.setdefault(index, (colour, file))
        if other != colour:
            one, two = hex_colour(other), hex_colour(colour)
            return f"index {index} is {one} in {where} and {two} in {file}"
        place, where = index_of.setdefault(colour, (index, file))
        if place != index and distinct:
            return f"{hex_colour(colour)} is index {place} in {where} and {index} in {file}"
    return ""


def _used(masks: Sequence[MaskValues], files: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Index, colour and file of each entry that a mask uses."""
    for mask, file in zip(masks, files, strict=True):
        if mask.palette != tuple(index * GREY for index in mask.values):  # those are numbers
            for index, colour in zip(mask.values, mask.palette, strict=False):
                yield index, colour, file
