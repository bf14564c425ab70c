"""From an image file to its label map, overlay and probabilities on disk.

K classes, H W image size.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unetexp.data.collection import RawImage
from unetexp.data.painting import displayable, paint
from unetexp.data.reading.input_form import AS_STORED
from unetexp.errors import ConfigError, UnetexpError
from unetexp.inference.conforming import conform, full_scale
from unetexp.inference.input_images import Input
from unetexp.inference.predictor import Predictor

_ROWS = 256  # painted at a time


@dataclass(frozen=True)
class Results:
    """Which results are written for each image, and where."""

    folder: Path
    overlay: bool = True
    probabilities: bool = False


def make_folder(folder: Path) -> None:
    """Make the folder of results; ConfigError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--out {folder}: this folder cannot be written to: {reason}.") from None


def predict_file(
    predictor: Predictor,
    image: Input,
    results: Results,
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, ...]:
    """Predict one image and write what `results` asks for; returns warnings about it.

    An image that cannot be predicted leaves no files. `on_block` is called for each part. Raises
    DataError for a broken image, UserError for one that the model cannot take, and UnetexpError
    if a result cannot be written.
    """
    raw = image.read(predictor.spec.input or AS_STORED)
    conformed, warnings = conform(raw, predictor.spec)
    pixels = torch.from_numpy(conformed)
    out = results.folder
    try:
        image.labels(out).parent.mkdir(parents=True, exist_ok=True)
        if results.probabilities:
            with _replacing(image.probabilities(out)) as scratch:
                labels = _predicted(predictor, pixels, on_block, scratch)
        else:
            labels = _predicted(predictor, pixels, on_block)
        if results.overlay:
            picture = _overlay(raw, full_scale(raw.itemsize, predictor.spec), labels)
            _save(picture, image.overlay(out))
        _save(labels, image.labels(out))
    except OSError as error:
        raise UnetexpError(f"{out}: the results cannot be written: {error}.") from None
    return warnings


def _predicted(
    predictor: Predictor,
    image: Tensor,
    on_block: Callable[[int, int], None],
    file: Path | None = None,
) -> NDArray[np.uint8]:
    """The label map (H, W); the probabilities (K, H, W) go into `file` as float16."""
    height, width = image.shape[-2:]
    total = predictor.block_count(height, width)
    labels = np.empty((height, width), np.uint8)
    probabilities = None
    if file is not None:
        shape = (len(predictor.spec.class_names), height, width)
        probabilities = open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    for done, block in enumerate(predictor.blocks(image), start=1):
        labels[block.rows, block.columns] = block.scores.argmax(dim=0).to(torch.uint8).numpy()
        if probabilities is not None:
            probabilities[:, block.rows, block.columns] = block.scores.softmax(dim=0).numpy()
        on_block(done, total)
    if probabilities is not None:
        probabilities.flush()
    return labels


def _overlay(image: RawImage, white: int, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The labels in colour over the image (C, H, W), as RGB (H, W, 3)."""
    picture = np.empty((*labels.shape, 3), np.uint8)
    for top in range(0, len(labels), _ROWS):
        rows = slice(top, top + _ROWS)
        picture[rows] = paint(displayable(image[:, rows], white), labels[rows])
    return picture


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    with _replacing(path) as scratch:
        Image.fromarray(pixels).save(scratch, format="PNG")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A scratch file that replaces `path` when the block ends without an error.

    If `path` is a link, the link is replaced and not its target.
    """
    scratch = path.with_name(f".unetexp-{os.getpid()}.part")
    try:
        yield scratch
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
