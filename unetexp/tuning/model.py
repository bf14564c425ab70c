"""Tuning the postprocessing of a model on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from unetexp.data import Dataset
from unetexp.inference.evaluation import as_the_model_takes_it, samples_of
from unetexp.inference.predictor import Predictor
from unetexp.models.saved_model import load, read_spec
from unetexp.tuning.cached import cached
from unetexp.tuning.tune import Tuned, tune


def tune_model(
    folder: Path,
    data: Dataset,
    split: str,
    device: torch.device,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Tuned:
    """What helps the model in `folder` on a split of `data`, which is at its images' own size.

    Raises DataError for data of other classes or without that split.
    """
    spec = read_spec(folder)
    plain = spec.model_copy(update={"postprocessing": None})
    as_the_model_takes_it(data, spec)
    samples = samples_of(data, split, spec)
    predictor = Predictor(load(folder), plain, device)
    with tempfile.TemporaryDirectory(prefix="unetexp-tune-") as scratch:
        images = cached(predictor, samples, Path(scratch), on_image)
        return tune(images, spec.class_names)
