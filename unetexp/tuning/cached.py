"""A model's probabilities on a split, computed once and kept on disk while they are tuned on.

I images, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unetexp.inference.evaluation import ConformedSamples
from unetexp.inference.predictor import Predictor

MOST_BYTES = 2 * 2**30
_LEAST = -30.0  # of a logarithm: float16 holds it, and no probability below matters


class CachedImage(NamedTuple):
    """What a model says of an image, beside the truth."""

    logits: NDArray[np.float32]  # (K, H, W), logarithms of probabilities
    truth: NDArray[np.uint8]  # (H, W)


@dataclass(frozen=True)
class CachedProbabilities:
    """The images of a split, or as many, evenly from it, as the disk may hold."""

    files: tuple[tuple[Path, Path], ...]
    groups: tuple[str, ...]  # of each image, or its own name

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> CachedImage:
        logits, truth = (np.load(path, mmap_mode="r") for path in self.files[index])
        return CachedImage(np.asarray(logits, np.float32), np.asarray(truth))


def cached(
    predictor: Predictor,
    samples: ConformedSamples,
    folder: Path,
    on_image: Callable[[int, int], None] = lambda done, total: None,
    most_bytes: int = MOST_BYTES,
) -> CachedProbabilities:
    """Predict images at their own size into `folder`; float16, at most `most_bytes`."""
    chosen = _within(samples.shapes, len(predictor.spec.class_names), most_bytes)
    groups = samples.groups or samples.names
    files = []
    for done, index in enumerate(chosen, start=1):
        sample = samples[index]
        shares = predictor.logits(sample.image).log_softmax(dim=0).clamp(min=_LEAST)
        pair = folder / f"{index}-logits.npy", folder / f"{index}-truth.npy"
        np.save(pair[0], shares.numpy().astype(np.float16))
        np.save(pair[1], sample.mask.numpy().astype(np.uint8))
        files.append(pair)
        on_image(done, len(chosen))
    return CachedProbabilities(tuple(files), tuple(groups[index] for index in chosen))


def _within(shapes: Sequence[tuple[int, int]], classes: int, most_bytes: int) -> list[int]:
    """The indices of the images that are kept."""
    each = [2 * classes * height * width + height * width for height, width in shapes]
    share = min(1.0, most_bytes / max(1, sum(each)))
    count = max(1, int(len(shapes) * share))
    return [number * len(shapes) // count for number in range(count)]
