"""Names of classes beside masks of colours, where nothing says which colour has which name."""

from __future__ import annotations

from collections.abc import Sequence

from unetexp.data.label_values.label_map import hex_colour
from unetexp.data.label_values.remedies import setting
from unetexp.data.label_values.voc_palette import in_vocs_order, voc_colours
from unetexp.errors import DataError, listed

_BLACK = 0
_BACKGROUND = ("background", "bg", "back")
_SHOWN = 12


def require_order(
    where: str, colours: Sequence[int], names: Sequence[str], void: Sequence[int]
) -> None:
    """Raise DataError, with the setting of each likely order, unless only one is possible.

    `colours` are those of classes, ascending, and `void` others, all as 0xrrggbb; `names` are in
    the order of the classes.
    """
    if _is_plain(colours, names):
        return
    shown = listed(map(hex_colour, colours), _SHOWN)
    readings = _readings(colours, names)
    ask = f"write the colour after each name in classes.txt (as in `{names[0]} #804080`)"
    head = (
        f"{where}: the masks hold {len(colours)} colours ({shown}), and classes.txt names "
        f"{len(names)} ({listed(names)}) without saying which colour each has. Either {ask}, or "
    )
    if not readings:
        raise DataError(f"{head}set data.label_map.")
    raise DataError(
        f"{head}say which is meant:\n"
        + "\n".join(_reading(how, order, names, void) for how, order in readings.items())
    )


def _is_plain(colours: Sequence[int], names: Sequence[str]) -> bool:
    """Whether black is the background, and one other colour the other class."""
    first = names[0].strip(" _-").lower() if names else ""
    two = len(names) == len(colours) == 2
    return two and colours[0] == _BLACK and first in _BACKGROUND


def _readings(colours: Sequence[int], names: Sequence[str]) -> dict[str, Sequence[int]]:
    """In which orders the colours can be meant, the likeliest two."""
    palette = in_vocs_order(colours)
    if len(names) != len(colours):
        first = voc_colours()[: len(names)]
        fits = palette is not None and set(colours) <= set(first)
        return {"in the order of Pascal VOC's palette": first} if fits else {}
    found: dict[str, Sequence[int]] = {"black first, then by number": colours}
    if palette is not None and palette != list(colours):
        return {**found, "in the order of Pascal VOC's palette": palette}
    black = [colour for colour in colours if colour == _BLACK]
    others = [colour for colour in reversed(colours) if colour != _BLACK]
    backwards = black + others if len(others) > 1 else others + black
    how = "black first, then red before green before blue" if black and len(others) > 1 else ""
    return {**found, how or "the other way round": backwards}


def _reading(how: str, order: Sequence[int], names: Sequence[str], void: Sequence[int]) -> str:
    entries: dict[str, int | str] = {f'"{hex_colour(c)}"': k for k, c in enumerate(order)}
    entries |= {f'"{hex_colour(colour)}"': "void" for colour in void}
    each = zip(order, names, strict=True)
    shown = listed([f"{hex_colour(colour)} {name}" for colour, name in each], _SHOWN)
    return f"  {how}: {shown}: {setting(entries)}"
