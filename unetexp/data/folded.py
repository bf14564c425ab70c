"""Data in k folds: the set as a whole, and what each of the k models trains and validates on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unetexp.data.dataset import Dataset
from unetexp.data.decoded.joined_split import JoinedSplit
from unetexp.data.decoded.split import Split
from unetexp.data.splits.fold_names import is_fold


def dataset_of(stored: Mapping[str, Split], **known: Any) -> Dataset:
    """The data set of stored splits: train, val, perhaps test, or folds and perhaps test."""
    folds = tuple(split for name, split in stored.items() if is_fold(name))
    if not folds:
        return Dataset(splits=stored, **known)
    outside_test = JoinedSplit(folds)
    rest = {name: split for name, split in stored.items() if not is_fold(name)}
    splits = {"train": outside_test, "val": outside_test, **rest}
    return Dataset(splits=splits, folds=folds, **known)


def rounds(data: Dataset) -> tuple[Dataset, ...]:
    """The data of each model of an experiment: the set itself, or one for each fold.

    A fold's round validates on that fold and trains on all others.
    """
    if not data.folds:
        return (data,)
    return tuple(_round(data, index) for index in range(len(data.folds)))


def _round(data: Dataset, index: int) -> Dataset:
    others = [fold for number, fold in enumerate(data.folds) if number != index]
    own = {"train": JoinedSplit(others), "val": data.folds[index]}
    return replace(data, splits={**data.splits, **own}, folds=())
