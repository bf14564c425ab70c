"""Data whose validation images are trained on, once validation has nothing left to choose."""

from __future__ import annotations

from dataclasses import replace

from unetexp.data.dataset import Dataset
from unetexp.data.decoded.joined_split import JoinedSplit
from unetexp.errors import DataError

_NOTE = (
    "The validation images are trained on, too (data.train_with_val): the last epoch is kept, and "
    "val/... is of images that the model has seen."
)


def with_val_trained_on(data: Dataset) -> Dataset:
    """`data` with the images of val in train, too; it stays the same data set.

    Raises DataError for data in folds, whose models have seen all of it already.
    """
    if data.folds:
        raise DataError(
            f"data.train_with_val: this data has {len(data.folds)} folds and no val split of its "
            "own, and together the models of the folds have seen all images outside test. Leave "
            "it out."
        )
    train = JoinedSplit([data["train"], data["val"]])
    splits = {**data.splits, "train": train}
    return replace(data, splits=splits, notes=(*data.notes, _NOTE), val_in_train=True)
