"""k folds for cross-validation: each is the validation split of one of k trainings."""

from __future__ import annotations

from collections.abc import Sequence

from unetexp.data.splits.fold_names import fold_name
from unetexp.data.splits.seeded import Classes, Groups, differ, units_of
from unetexp.data.splits.stratified import best_stratified, drawn
from unetexp.errors import DataError


def fold_split(
    names: Sequence[str],
    folds: int,
    seed: int,
    classes: Classes | None = None,
    groups: Groups | None = None,
) -> dict[str, list[str]]:
    """`fold_0`, `fold_1`, ...: every name in exactly one, all of about the same size.

    Stratified where the masks' `classes` differ; a group is in one fold only. Raises DataError
    where there are fewer samples (or groups) than folds.
    """
    units = units_of(names, classes, groups)
    if len(units) < folds:
        grouped = len(units) < len(names)
        raise DataError(
            f"{len(units)} {'groups' if grouped else 'images'} are too few for {folds} folds"
            f"{', because a group is never cut' if grouped else ''}. "
            + (
                f"Use fewer folds (--set data.folds={len(units)}), or add images"
                if len(units) > 1
                else "Train without folds (--set data.folds=null), or add images"
            )
            + (" of other groups." if grouped else " with their masks.")
        )
    small, larger = divmod(len(names), folds)
    sizes = {fold_name(index): small + (index < larger) for index in range(folds)}
    if len(units) < len(names) or (classes is not None and differ(classes)):
        splits = best_stratified(units, sizes, seed)
    else:  # consecutive in the drawn order, so that adding images moves few of the others
        order = iter([name for unit in drawn(units, str(seed)) for name in unit.names])
        splits = {fold: [next(order) for _ in range(size)] for fold, size in sizes.items()}
    return {fold: sorted(members) for fold, members in splits.items()}
