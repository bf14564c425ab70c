"""Sources of (image, mask) pairs, decoded once and memory-mapped by all that read them."""

from unetexp.data.dataset import Dataset, Sample, Split
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
    "Split",
    "open_dataset",
]
