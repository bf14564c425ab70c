"""The check for classes that a split lacks. K classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unetexp.data.label_values.remedies import setting_without
from unetexp.data.splits.fold_names import is_fold
from unetexp.errors import listed


def coverage_problems(
    holds: Mapping[str, npt.NDArray[np.bool_]],
    class_names: Sequence[str],
    table: npt.NDArray[np.int16],
    method: str,
    stored: Sequence[tuple[str, int]],
    *,
    named: bool,
) -> list[str]:
    """A message for train and for val, or for the folds, if they lack classes of elsewhere.

    `holds` has for each split which mask (masks, K) holds which class, `table` (256,) the class
    of each stored value; `method` is how the split was made, `stored` the values as a label map
    names them, each with its place in the table; `named` if there is a classes.txt.
    """
    if folds := [held.any(axis=0) for name, held in holds.items() if is_fold(name)]:
        return _fold_problems(np.array(folds), holds, class_names)
    frequency = np.sum([held.sum(axis=0) for held in holds.values()], axis=0)
    total = sum(len(held) for held in holds.values())
    problems = []
    for split, why in (
        ("train", "It cannot be learnt."),
        ("val", "Validation cannot measure it, and val/miou leaves it out."),
    ):
        lacking = np.flatnonzero((frequency > 0) & ~holds[split].any(axis=0)).tolist()
        if lacking:
            found = [f"{class_names[k]} (in {frequency[k]} of all {total} masks)" for k in lacking]
            problems.append(
                f"no mask of the {split} split holds the class {listed(found)}. {why} "
                + _more_of(split, method, int(frequency[lacking].min()))
                + _left_out(table, lacking, class_names, method, stored, named=named)
            )
    return problems


def _fold_problems(
    folds: npt.NDArray[np.bool_],
    holds: Mapping[str, npt.NDArray[np.bool_]],
    class_names: Sequence[str],
) -> list[str]:
    """A message if a fold lacks a class; `folds` has which fold (k, K) holds which class."""
    frequency = np.sum([held.sum(axis=0) for held in holds.values()], axis=0)
    lacking = np.flatnonzero((frequency > 0) & ~folds.all(axis=0)).tolist()
    if not lacking:
        return []
    found = [
        f"{class_names[k]} (in {frequency[k]} masks, of {folds[:, k].sum()} folds)" for k in lacking
    ]
    least = int(folds[:, lacking].sum(axis=0).min())
    fewer = f"Use fewer folds (--set data.folds={least})" if least > 1 else "Train without folds"
    without = "" if least > 1 else " (--set data.folds=null)"
    return [
        f"not each of the {len(folds)} folds holds the class {listed(found)}: a fold without it "
        f"cannot measure it, and the mean over folds would not be one. {fewer}{without}, another "
        "data.seed, or label more images that show it."
    ]


def _more_of(split: str, method: str, masks: int) -> str:
    """How to get masks of a class that `masks` of all hold into `split`."""
    if method == "folders":
        return f"Move images that show it, with their masks, into {split}, or label more of them."
    if masks < 2:
        return "Label more images that show it: train and val need one each."
    size = "larger" if split == "val" else "smaller"
    return (
        f"Label more images that show it, set a {size} data.val_fraction or another data.seed, or "
        "put the images into train and val folders yourself."
    )


def _left_out(
    table: npt.NDArray[np.int16],
    lacking: list[int],
    class_names: Sequence[str],
    method: str,
    stored: Sequence[tuple[str, int]],
    *,
    named: bool,
) -> str:
    """How to leave out the classes, if the source has a label map."""
    if len(class_names) - len(lacking) < 2 or method not in ("folders", "seeded"):
        return ""
    by_colour = {f'"#{name}"' for name in class_names} <= {key for key, _ in stored}
    removal = ", and take it out of classes.txt" if named and not by_colour else ""
    without = setting_without(table, lacking, len(class_names), stored)
    return (
        f" To leave it out: {without}{removal}. To merge it "
        "with another class, write the number of that class instead of void."
    )
