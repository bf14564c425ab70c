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
from unetexp.postprocessing.uncertainty import entropy_of

_ROWS = 256  # painted at a time


@dataclass(frozen=True)
class Results:
    """Which results are written for each image, and where."""

    folder: Path
    overlay: bool = True
    probabilities: bool = False
    uncertainty: bool = False


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
        unsure = np.empty(pixels.shape[-2:], np.uint8) if results.uncertainty else None
        if results.probabilities:
            with _replacing(image.probabilities(out)) as scratch:
                labels = _predicted(predictor, pixels, on_block, scratch, unsure)
        else:
            labels = _predicted(predictor, pixels, on_block, None, unsure)
        if unsure is not None:
            _save(unsure, image.uncertainty(out))
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
    unsure: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """The label map (H, W); the probabilities (K, H, W) go into `file` as float16.

    The uncertainty (H, W), 0 to 255, goes into `unsure`.
    """
    height, width = image.shape[-2:]
    total = predictor.block_count(height, width)
    labels = np.empty((height, width), np.uint8)
    probabilities = None
    if file is not None:
        shape = (len(predictor.spec.class_names), height, width)
        probabilities = open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    whole = None
    if predictor.needs_whole_images:
        whole = torch.empty(len(predictor.spec.class_names), height, width)
    for done, block in enumerate(predictor.blocks(image), start=1):
        if whole is not None:
            whole[:, block.rows, block.columns] = block.scores
        else:
            labels[block.rows, block.columns] = predictor.labels_of(block.scores).numpy()
        if probabilities is not None or unsure is not None:
            shares = predictor.shares_of(block.scores).numpy()
            if probabilities is not None:
                probabilities[:, block.rows, block.columns] = shares
            if unsure is not None:
                unsure[block.rows, block.columns] = (255 * entropy_of(shares)).round()
        on_block(done, total)
    if whole is not None:
        labels = predictor.labels_of(whole).numpy()
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
