"""Sources of (image, mask) pairs, decoded once and memory-mapped by all readers.

The names are imported when they are first used: reading one image needs none of the sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetexp._lazy import lazy_names

if TYPE_CHECKING:
    from unetexp.data.dataset import Dataset
    from unetexp.data.decoded.sample import Sample, Samples
    from unetexp.data.decoded.split import Split
    from unetexp.data.sources import DataSource, open_dataset
    from unetexp.data.sources.camvid import Camvid
    from unetexp.data.sources.cityscapes import Cityscapes
    from unetexp.data.sources.coco import Coco
    from unetexp.data.sources.folder import Folder
    from unetexp.data.sources.manifest import Manifest
    from unetexp.data.sources.mni152 import Mni152
    from unetexp.data.sources.nifti import Nifti
    from unetexp.data.sources.oxford_pet import OxfordPet
    from unetexp.data.sources.voc2012 import Voc2012

__all__ = [
    "Camvid",
    "Cityscapes",
    "Coco",
    "DataSource",
    "Dataset",
    "Folder",
    "Manifest",
    "Mni152",
    "Nifti",
    "OxfordPet",
    "Sample",
    "Samples",
    "Split",
    "Voc2012",
    "open_dataset",
]

_MODULES = {
    "DataSource": "sources",
    "Dataset": "dataset",
    "Camvid": "sources.camvid",
    "Cityscapes": "sources.cityscapes",
    "Coco": "sources.coco",
    "Manifest": "sources.manifest",
    "Nifti": "sources.nifti",
    "Voc2012": "sources.voc2012",
    "Folder": "sources.folder",
    "Mni152": "sources.mni152",
    "OxfordPet": "sources.oxford_pet",
    "Sample": "decoded.sample",
    "Samples": "decoded.sample",
    "Split": "decoded.split",
    "open_dataset": "sources",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
