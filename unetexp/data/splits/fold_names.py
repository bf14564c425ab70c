"""What the folds are called among the splits."""

from __future__ import annotations

_FOLD = "fold_"


def fold_name(index: int) -> str:
    """The name of a fold, counted from 0."""
    return f"{_FOLD}{index}"


def is_training(split: str) -> bool:
    """Whether a model is trained on images of the stored split of this name."""
    return split == "train" or is_fold(split)


def is_fold(split: str) -> bool:
    """Whether the split of this name is a fold."""
    return split.startswith(_FOLD)
