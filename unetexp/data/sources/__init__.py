"""The sources of images: their union, and the function that opens any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from unetexp.component import decode
from unetexp.data.cache.decoding import FileDecoder
from unetexp.data.cache.opening import open_collection, resized
from unetexp.data.collection import Progress
from unetexp.data.dataset import Dataset
from unetexp.data.sources.camvid import Camvid
from unetexp.data.sources.cityscapes import Cityscapes
from unetexp.data.sources.coco import Coco
from unetexp.data.sources.file_source import FileSource
from unetexp.data.sources.folder import Folder
from unetexp.data.sources.manifest import Manifest
from unetexp.data.sources.mni152 import Mni152
from unetexp.data.sources.nifti import Nifti
from unetexp.data.sources.oxford_pet import OxfordPet
from unetexp.data.sources.voc2012 import Voc2012
from unetexp.data.with_val import with_val_trained_on

DataSource: TypeAlias = Annotated[
    Mni152 | Folder | OxfordPet | Manifest | Voc2012 | Cityscapes | Camvid | Coco | Nifti,
    Field(discriminator="kind"),
]


def open_dataset(
    source: DataSource,
    *,
    on_progress: Progress | None = None,
    to_train: bool = True,
) -> Dataset:
    """The decoded data set of `source`, built into the cache if it is not there yet.

    `on_progress(what, done, total)` is called from this thread. Raises DataError for everything
    that is wrong with the data or the cache folder. Without `to_train` it accepts a set on which a
    model can be evaluated but should not be trained: a class that val lacks, values with gaps.
    """
    dataset = open_collection(
        resized(source.collect(on_progress), source.resize),
        on_progress,
        to_train=to_train,
        source=source if isinstance(source, FileSource) else None,
    )
    return with_val_trained_on(dataset) if source.train_with_val else dataset


def dataset_of_tree(tree: Mapping[str, Any]) -> Dataset:
    """The data set that a `Dataset.tree` tells of, also one whose samples are not in the cache."""
    return Dataset.of_tree(tree, _decoder_of)


def _decoder_of(tree: Mapping[str, Any]) -> FileDecoder:
    return FileDecoder.of_tree(decode(DataSource, tree["source"]), tree)
