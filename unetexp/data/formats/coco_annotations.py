"""COCO's annotation files: instances as masks of classes.

Lin et al., Microsoft COCO, ECCV 2014, doi:10.1007/978-3-319-10602-1_48, and
https://cocodataset.org/#format-data. Regions are decoded by pycocotools.

H W image size.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as regions

from unetexp.data.collection import Labels
from unetexp.data.labels import VOID
from unetexp.errors import DataError, listed

_KEPT_FILES = 4  # train, val, test and one more


@dataclass(frozen=True)
class Instance:
    """One annotated object."""

    category: int  # its id
    segmentation: Any  # polygons, or a run-length encoding; None: there is only a box
    area: float  # pixels, as the file says
    crowd: bool


@dataclass(frozen=True)
class Annotated:
    """One image of the file."""

    file_name: str
    height: int
    width: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Annotations:
    """One file."""

    path: Path
    categories: Mapping[int, str]  # by id
    images: Mapping[int, Annotated]  # by id


def read_annotations(path: Path) -> Annotations:
    """The file at `path`, read once as long as it does not change. Raises DataError."""
    try:
        state = path.stat()
    except OSError:
        raise DataError(f"{path} does not exist. Give the JSON file of the annotations.") from None
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=_KEPT_FILES)
def _read(path: Path, changed_ns: int, size: int) -> Annotations:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: this file is not JSON, or it is damaged or cut off: {error}."
        ) from None
    lacking = [
        name
        for name in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(name), list)
    ]
    if lacking:
        raise DataError(
            f"{path}: the lists {listed(lacking)} are missing: these are not COCO's instance "
            "annotations, which hold images, annotations and categories."
        )
    try:
        return _annotations(path, content)
    except DataError:
        raise  # it is a ValueError too
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: an entry lacks a field or has one of the wrong type: {error!r}. Images have "
            "id, file_name, height and width, annotations image_id, category_id and segmentation, "
            "categories id and name."
        ) from None


def _annotations(path: Path, content: Mapping[str, Any]) -> Annotations:
    categories = {int(each["id"]): str(each["name"]) for each in content["categories"]}
    images = {int(each["id"]): each for each in content["images"]}
    of_image: defaultdict[int, list[Instance]] = defaultdict(list)
    for each in content["annotations"]:
        image, category = int(each["image_id"]), int(each["category_id"])
        if image not in images or category not in categories:
            what, known = ("image", image) if image not in images else ("category", category)
            raise DataError(
                f"{path}: the annotation {each.get('id', '')} belongs to the {what} {known}, which "
                "the file does not hold. Export the annotations again."
            )
        of_image[image].append(
            Instance(
                category,
                each.get("segmentation") or None,
                float(each.get("area") or 0),
                bool(each.get("iscrowd", 0)),
            )
        )
    return Annotations(
        path,
        categories,
        {
            key: Annotated(
                str(each["file_name"]),
                int(each["height"]),
                int(each["width"]),
                tuple(of_image[key]),
            )
            for key, each in images.items()
        },
    )


def class_mask(where: str, image: Annotated, classes: Mapping[int, int]) -> Labels:
    """The class of each pixel (H, W), given the class of each category id that counts.

    0 where there is nothing. Crowds are void and lie below all objects; of two objects the smaller
    lies on top. Raises DataError, which begins with `where`, for a damaged region.
    """
    mask = np.zeros((image.height, image.width), np.uint8)
    drawn = [
        (each, _region(where, image, each.segmentation))
        for each in image.instances
        if each.category in classes and each.segmentation is not None
    ]
    crowds_first_then_by_size = sorted(drawn, key=lambda each: (not each[0].crowd, -each[1].sum()))
    for instance, region in crowds_first_then_by_size:
        mask[region] = VOID if instance.crowd else classes[instance.category]
    return mask


def _region(where: str, image: Annotated, segmentation: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The pixels of one object: (H, W)."""
    height, width = image.height, image.width
    try:
        if isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
            encoded = regions.merge(regions.frPyObjects(list(segmentation), height, width))
        elif isinstance(segmentation["counts"], list):
            encoded = regions.frPyObjects(segmentation, *segmentation["size"])
        else:
            encoded = segmentation
        region = np.asarray(regions.decode(encoded), np.bool_)
    except Exception as error:  # pycocotools raises many kinds on damaged regions
        raise DataError(
            f"{where}: a region of {image.file_name} cannot be decoded ({error}). It must be a "
            "list of polygons with six numbers or more each, or a run-length encoding."
        ) from None
    if region.shape != (height, width):
        raise DataError(
            f"{where}: a region of {image.file_name} is {region.shape[0]} x {region.shape[1]} "
            f"pixels (height x width), the image {height} x {width}. Export it again."
        )
    return region
