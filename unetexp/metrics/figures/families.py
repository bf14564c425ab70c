"""The figures by name: what each means, its unit, how it is aggregated, which way is better.

A figure of a class is called `<family>/<class>`, as `hd95/lesion`; a family without classes, and
the mean over the classes, by the family's name alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Aggregation: TypeAlias = Literal["set", "mean of images", "count"]

SIZES = ("small", "medium", "large")
_BACKGROUND = frozenset({"back", "background", "bg", "unlabeled", "unlabelled"})


@dataclass(frozen=True)
class Family:
    """A kind of figure."""

    name: str
    title: str  # as the heading of a column
    aggregation: Aggregation
    mean: bool = False  # whether there is a figure of all classes, their mean
    higher_is_better: bool = True
    distance: bool = False  # in px or mm; the others are shares or counts


PER_CLASS = (
    Family("iou", "IoU", "set"),
    Family("dice", "Dice", "set"),
    Family("iou_per_image", "IoU, images", "mean of images"),
    Family("dice_per_image", "Dice, images", "mean of images"),
    Family("boundary_iou", "boundary IoU", "set", mean=True),
    Family("boundary_iou_per_image", "boundary IoU, images", "mean of images", mean=True),
    Family("nsd", "NSD", "mean of images", mean=True),
    Family("hd95", "HD95", "mean of images", mean=True, higher_is_better=False, distance=True),
    Family("cldice", "clDice", "mean of images", mean=True),
    Family("instance_f1", "F1 of objects", "set", mean=True),
    Family("panoptic_quality", "PQ", "set", mean=True),
    *(Family(f"object_recall_{size}", f"{size} objects found", "set") for size in SIZES),
    Family("missed_images", "missed", "count", higher_is_better=False),
    Family("false_images", "false", "count", higher_is_better=False),
)
BINARY = (Family("sensitivity", "sensitivity", "set"), Family("specificity", "specificity", "set"))
WHOLE = (
    Family("ece", "ECE", "set", higher_is_better=False),
    Family("brier", "Brier", "set", higher_is_better=False),
)
FAMILIES = {family.name: family for family in (*PER_CLASS, *BINARY, *WHOLE)}


def foreground(class_names: Sequence[str]) -> list[int]:
    """The classes that have figures of their own: all but the background.

    That is class 0 of two, and a class 0 that is called so.
    """
    first = class_names[0].lower() in _BACKGROUND or len(class_names) == 2
    return list(range(int(first), len(class_names)))


def families_of_classes(class_names: Sequence[str]) -> tuple[Family, ...]:
    """The families that each class has a figure of; those of two classes are more."""
    return (*PER_CLASS, *BINARY) if len(class_names) == 2 else PER_CLASS


def figure_names(class_names: Sequence[str]) -> list[str]:
    """Every figure of a set of these classes."""
    own = [class_names[index] for index in foreground(class_names)]
    families = families_of_classes(class_names)
    return [
        *(family.name for family in WHOLE),
        *(family.name for family in families if family.mean),
        *(f"{family.name}/{name}" for family in families for name in own),
    ]


def is_of_every_epoch(name: str) -> bool:
    """Whether validation has a metric of that name in each epoch, and not just once at the end."""
    family = name.partition("/")[0]
    return family in ("iou", "dice") or family not in FAMILIES


def family_of(name: str) -> Family:
    """The family of a figure."""
    return FAMILIES[name.partition("/")[0]]
