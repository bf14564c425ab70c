"""The images that int8 is calibrated with: some of the training split, as the graph takes them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from unetexp.data import Dataset
from unetexp.errors import DataError
from unetexp.inference.conforming import full_scale
from unetexp.inference.evaluation import samples_of
from unetexp.models.image_spec import ImageSpec
from unetexp.models.weights.resolution import to_input

IMAGES = 64
_MOST_PX = 512  # of a side: a crop of the middle shows what a layer's values are


def calibration_inputs(
    data: Dataset, spec: ImageSpec, *, preprocessing: bool = False, most: int = IMAGES
) -> list[NDArray[Any]]:
    """Graph inputs of up to `most` images of the training split; DataError where it has none."""
    if "train" not in data.splits or not len(data["train"]):
        raise DataError(
            "int8 is calibrated with training images, and this data has none "
            f"({', '.join(data.splits)}). Give --data a set with a training split, or choose "
            "--precision fp16."
        )
    return graph_inputs(data, "train", spec, preprocessing=preprocessing, most=most)


def graph_inputs(
    data: Dataset,
    split: str,
    spec: ImageSpec,
    *,
    preprocessing: bool,
    most: int,
    side_px: int = _MOST_PX,
) -> list[NDArray[Any]]:
    """Up to `most` images, evenly from the split, each the middle of it as a batch of one.

    `data` is at the model's working size. Normalised (1, C, h, w) float32, or raw (1, h, w, C).
    """
    samples = samples_of(data, split, spec)
    count = min(most, len(samples))
    inputs = []
    for number in range(count):
        image = samples[number * len(samples) // count].image
        top, left = (max(0, side - side_px) // 2 for side in image.shape[-2:])
        image = image[:, top : top + side_px, left : left + side_px]
        if preprocessing:
            inputs.append(image.permute(1, 2, 0)[None].contiguous().numpy())
        else:
            scaled = image.float() / full_scale(image.itemsize, spec)
            inputs.append(to_input(scaled[None], spec.normalization).numpy())
    return inputs
