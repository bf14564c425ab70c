"""Sources of (image, mask) pairs, decoded once and memory-mapped by all that read them.

The names are imported when they are first used: reading one image needs none of the sources.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unetexp.data.dataset import Dataset, Sample, Samples, Split
    from unetexp.data.folder import Folder
    from unetexp.data.mni152 import Mni152
    from unetexp.data.oxford_pet import OxfordPet
    from unetexp.data.sources import DataSource, open_dataset

__all__ = [
    "DataSource",
    "Dataset",
    "Folder",
    "Mni152",
    "OxfordPet",
    "Sample",
    "Samples",
    "Split",
    "open_dataset",
]

_HOMES = {
    "DataSource": "sources",
    "Dataset": "dataset",
    "Folder": "folder",
    "Mni152": "mni152",
    "OxfordPet": "oxford_pet",
    "Sample": "dataset",
    "Samples": "dataset",
    "Split": "dataset",
    "open_dataset": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
