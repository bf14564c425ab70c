"""The palette of Pascal VOC, in which many tools paint masks of their users' own classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

BORDER = 0xE0E0C0  # 255, around every object: void
_COLOURS = 256


@cache
def voc_colours() -> tuple[int, ...]:
    """The colour 0xrrggbb of each label, as VOC's development kit computes it.

    The bits of a label go to red, green and blue in turn, the lowest to their highest bit.
    """
    found = []
    for label in range(_COLOURS):
        colour = 0
        for bit in range(8):
            channel, depth = bit % 3, bit // 3
            colour |= (label >> bit & 1) << (8 * (2 - channel) + 7 - depth)
        found.append(colour)
    return tuple(found)


def in_vocs_order(colours: Sequence[int]) -> list[int] | None:
    """The colours by their labels in VOC's palette; None if one is not in it."""
    palette = voc_colours()
    if not set(colours) <= set(palette):
        return None
    return sorted(colours, key=palette.index)


def has_border(colours: Sequence[int]) -> bool:
    """Whether the border is among `colours` that are VOC's otherwise too, black and others."""
    others = [colour for colour in colours if colour != BORDER]
    return 1 < len(others) < len(colours) and in_vocs_order(others) is not None
