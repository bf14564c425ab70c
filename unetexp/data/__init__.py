"""Sources of (image, mask) pairs, decoded once and memory-mapped by all that read them.

The names are imported when they are first used: reading one image needs none of the sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetexp.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
