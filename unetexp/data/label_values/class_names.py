"""The names of classes, and the colours that stand for them, in files beside the data.

classes.txt                  one name a line, in index order; a colour may stand beside each;
                             class_names.txt, as labelme writes it, is the same
codes.txt                    the same as fastai's sets have it; Void among the names is no class
label_colors.txt             as CamVid has it: 64 128 64  Animal
class_dict.csv and others    a header with name, r, g, b
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unetexp.data.label_values.label_map import label_map_text
from unetexp.data.labels import VOID
from unetexp.errors import DataError

CLASSES_FILE = "classes.txt"
CODES_FILE = "codes.txt"
_NAMES = (CLASSES_FILE, "class_names.txt")
NAME_FILES = (*_NAMES, CODES_FILE)
_TABLES = (
    *("label_colors.txt", "label_colours.txt", "colors.txt", "colours.txt"),
    *("class_dict.csv", "classes.csv", "class_dict_seg.csv", "label_colors.csv", "colors.csv"),
    "labels.csv",
)
_VOID = {"void", "ignore", "ignored", "unlabelled", "unlabeled", "unknown", "don't care"}
_CLASS_NAME = re.compile(r"\w[\w .:-]{0,99}")  # what MLflow accepts in the name of a metric
_NUMBERS = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})")
_LINE = re.compile(
    rf"(?:{_NUMBERS.pattern}[\s,]+)(?P<name>\D.*)|(?P<first>\D.*?)[\s,]+"
    rf"(?:{_NUMBERS.pattern}|#(?P<hex>[0-9a-fA-F]{{6}}))"
)


@dataclass(frozen=True)
class ClassNames:
    """Names in index order, and which colour 0xrrggbb is which class, or VOID."""

    names: tuple[str, ...]
    colours: Mapping[int, int] = field(default_factory=dict)
    stored: tuple[str, ...] = ()  # of each stored value, void too; (): the values are classes

    def label_map(self) -> str | None:
        """The class of each stored value, where some are void; None: the values are classes."""
        if self.stored in ((), self.names):
            return None
        targets = [self.names.index(n) if n in self.names else VOID for n in self.stored]
        return label_map_text(dict(enumerate(targets)))

    def void(self) -> str:
        """The stored values that are void, in words."""
        void = [f"{k} ({n})" for k, n in enumerate(self.stored) if n not in self.names]
        return " and ".join(void)


def class_names_in(folder: Path) -> ClassNames | None:
    """What the files beside the data say; None where there are none. Raises DataError."""
    listed = next((folder / n for n in _NAMES if (folder / n).exists()), folder / CLASSES_FILE)
    if listed.exists():
        named = _of_lines(listed, _lines(listed))
        return ClassNames(*named) if named else ClassNames(read_class_names(listed) or ())
    if (folder / CODES_FILE).is_file():
        return _codes(folder / CODES_FILE)
    found = [folder / name for name in _TABLES if (folder / name).is_file()]
    for path in found:
        rows = _csv_rows(path) if path.suffix == ".csv" else _of_lines(path, _lines(path))
        if rows:
            return ClassNames(*rows)
    return None


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """The names in a classes.txt, None if there is no such file. Raises DataError."""
    if not path.exists():
        return None
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise DataError(
            f"{path}: this link leads to {path.resolve()}, outside {path.parent}. Put the file "
            "itself there."
        )
    names = _lines(path)
    for number, name in enumerate(names, 1):
        if not _CLASS_NAME.fullmatch(name):
            raise DataError(
                f"{path}: line {number} is {name!r}. Each line names one class, in index order, "
                "in at most 100 letters, digits, spaces and . : - _, beginning with a letter or "
                "digit."
            )
        if name in names[: number - 1]:
            raise DataError(f"{path}: line {number} names {name!r} a second time: rename one.")
    if not 2 <= len(names) <= VOID:
        raise DataError(
            f"{path}: the number of classes is {len(names)}. 2 to {VOID} are allowed: name the "
            "background too."
        )
    return tuple(names)


def _codes(path: Path) -> ClassNames:
    every = read_class_names(path) or ()
    names = tuple(name for name in every if name.lower() not in _VOID)
    if len(names) < 2:
        raise DataError(f"{path}: it names {len(names)} classes. Two or more are needed.")
    return ClassNames(names, stored=every)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this file cannot be read as UTF-8 text: {error}") from None
    return [line.strip() for line in "\n".join(lines).rstrip().split("\n")]


def _of_lines(path: Path, lines: Sequence[str]) -> tuple[tuple[str, ...], dict[int, int]] | None:
    """Names and colours of lines such as `64 128 64 Animal`; None if a line has no colour."""
    rows = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name = (match["name"] or match["first"]).strip(" \t,:")
        if match["hex"]:
            rows.append((name, int(match["hex"], 16)))
        else:
            numbers = [int(n) for n in match.groups() if n is not None and n.isdigit()][:3]
            rows.append((name, _packed(path, numbers)))
    return _table(path, rows)


def _csv_rows(path: Path) -> tuple[tuple[str, ...], dict[int, int]] | None:
    """Names and colours of a table with the columns name, r, g, b; None if it has no such."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this table cannot be read: {error}") from None
    header = [name.lower() for name in lines[0]] if lines else []
    columns = [
        next((i for i, n in enumerate(header) if n == word or n == word[0]), None)
        for word in ("red", "green", "blue")
    ]
    name = next((i for i, n in enumerate(header) if n in ("name", "class", "label")), None)
    if name is None or None in columns:
        return None
    rows = []
    for line in lines[1:]:
        cells = [line[i] for i in columns if i is not None and i < len(line)]
        if len(cells) < 3 or not all(cell.isdigit() for cell in cells):
            raise DataError(f"{path}: {','.join(line)!r} is no name with red, green and blue.")
        rows.append((line[name], _packed(path, [int(cell) for cell in cells])))
    return _table(path, rows)


def _packed(path: Path, numbers: Sequence[int]) -> int:
    if max(numbers) > VOID:
        raise DataError(f"{path}: {numbers} is not a colour: red, green and blue go up to 255.")
    return numbers[0] << 16 | numbers[1] << 8 | numbers[2]


def _table(path: Path, rows: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Classes in the file's order; what is named void is no class."""
    names: list[str] = []
    colours: dict[int, int] = {}
    for name, colour in rows:
        if colour in colours:
            raise DataError(f"{path}: the colour #{colour:06x} stands there twice: remove one.")
        if name.lower() in _VOID:
            colours[colour] = VOID
            continue
        clean = re.sub(r"[^\w .:-]", "_", name).lstrip(" .:-")
        if clean not in names:
            names.append(clean)
        colours[colour] = names.index(clean)
    if len(names) < 2:
        raise DataError(f"{path}: it names {len(names)} classes. Two or more are needed.")
    return tuple(names), colours
