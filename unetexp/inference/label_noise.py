"""Masks that a model contradicts with confidence: suspected label noise, ranked.

K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from unetexp.data import Dataset, Samples
from unetexp.data.checks.facts import SampleFacts
from unetexp.data.checks.finding import Box, Finding, Offender, Severity
from unetexp.data.labels import VOID
from unetexp.inference.evaluation import as_the_model_takes_it, samples_of
from unetexp.inference.predictor import Predictor
from unetexp.models.saved_model import load, read_spec

_HELD_OUT = ("val", "test")
_SURE = 0.5  # probability of another class above that of the label
_MOST_REGIONS = 8
_SHOWN = 20
_OUTLIER = 3.5  # robust deviations above the median, from which a mask is suspected
_LEAST = 0.15  # score below which nothing is suspected


@dataclass(frozen=True)
class Doubt:
    """How much a model doubts the mask of one image."""

    name: str
    split: str
    score: float  # 0: agrees, 1: nothing in common
    regions: tuple[Box, ...]  # where, the largest first


def doubts(predictor: Predictor, samples: Samples, split: str) -> list[Doubt]:
    """The doubts about each mask of `samples`, in their order."""
    found = []
    for index, name in enumerate(samples.names):
        sample = samples[index]
        probabilities = predictor.probabilities(sample.image).numpy()
        score, regions = doubt_of(probabilities, sample.mask.numpy())
        found.append(Doubt(name, split, score, regions))
    return found


def doubt_of(
    probabilities: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]
) -> tuple[float, tuple[Box, ...]]:
    """The score and the regions of one image, from probabilities (K, H, W) and a mask (H, W).

    The score is 1 minus the soft Dice of everything that is not the most common class: the
    classes inside of an object are often confused where the mask is right. Regions are where the
    model is sure of another class over more than a rim.
    """
    known = mask != VOID
    labels = np.where(known, mask, 0).astype(np.int64)
    counts = np.bincount(labels[known], minlength=len(probabilities))
    predicted = probabilities.sum(axis=(1, 2))
    background = int((counts + predicted).argmax())
    foreground = (1 - probabilities[background])[known]
    labelled = (labels != background)[known]
    both, total = float(foreground[labelled].sum()), float(foreground.sum() + labelled.sum())
    score = 1 - (2 * both + 1) / (total + 1)
    own = np.take_along_axis(probabilities, labels[None], axis=0)[0]
    sure = known & (probabilities.max(axis=0) - own > _SURE)
    return score, _regions(sure)


def _regions(sure: npt.NDArray[np.bool_]) -> tuple[Box, ...]:
    core = ndimage.binary_opening(sure, iterations=2)  # a rim of uncertain border is no fault
    numbers, count = ndimage.label(core)
    if not count:
        return ()
    areas = np.bincount(numbers.reshape(-1))[1:]
    places = ndimage.find_objects(numbers)
    largest = np.argsort(-areas, kind="stable")[:_MOST_REGIONS]
    return tuple(
        (place[0].start, place[1].start, place[0].stop, place[1].stop)
        for place in (places[i] for i in largest.tolist())
    )


def noise_finding(
    folder: Path, data: Dataset, facts: Sequence[SampleFacts], device: torch.device
) -> list[Finding]:
    """The masks ranked by how surely the model in `folder` contradicts them; none to rank: none.

    Only images that the model was not trained on are asked about.
    """
    spec = read_spec(folder)
    predictor = Predictor(load(folder), spec, device)
    as_the_model_takes_it(data, spec)  # refuses data of other classes
    ranked = sorted(
        (
            doubt
            for split in _HELD_OUT
            if split in data.splits
            for doubt in doubts(predictor, samples_of(data, split, spec), split)
        ),
        key=lambda doubt: -doubt.score,
    )
    return [_finding(ranked, facts)] if ranked else []


def _finding(ranked: Sequence[Doubt], facts: Sequence[SampleFacts]) -> Finding:
    """The ranking, as a warning about the masks that stand out or as a note where none does."""
    limit = suspicious_from(ranked)
    suspected = [doubt for doubt in ranked if doubt.score >= limit]
    number = {(s.split, s.name): i for i, s in enumerate(facts)}
    shown = [
        (doubt, number[doubt.split, doubt.name])
        for doubt in suspected or ranked[:_SHOWN]
        if (doubt.split, doubt.name) in number
    ]
    title = (
        f"The model contradicts {len(suspected)} of {len(ranked)} held-out masks far more than the "
        "others"
        if suspected
        else f"The model contradicts none of {len(ranked)} held-out masks far more than the others"
    )
    first = ", ".join(f"{d.name} ({d.score:.2f})" for d in (suspected or ranked)[:3])
    return Finding(
        "suspected-label-noise",
        Severity.warning if suspected else Severity.note,
        f"{title}; the most doubtful first: {first}.",
        "Wrong masks in val and test lower the figure of every model and hide which is best; "
        "such masks in train are as common and are learnt.",
        "Look at the pictures from the top: regions in which the model is sure of another "
        "class are framed. Mend the masks that are wrong; the model may be wrong, too.",
        files=tuple(facts[i].mask_label for _, i in shown),
        numbers={
            "suspected": len(suspected),
            "ranking": [
                {
                    "image": doubt.name,
                    "split": doubt.split,
                    "score": round(doubt.score, 4),
                    "regions": [list(region) for region in doubt.regions],
                }
                for doubt in ranked
            ],
        },
        offenders=tuple(
            Offender(i, f"{d.split}: {d.name}, doubt {d.score:.2f}", d.regions)
            for d, i in shown[:_SHOWN]
        ),
    )


def suspicious_from(ranked: Sequence[Doubt]) -> float:
    """The score from which a mask stands out among all: so many robust deviations above."""
    scores = np.array([doubt.score for doubt in ranked])
    if not len(scores):
        return 1.0
    middle = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - middle)))
    return max(_LEAST, middle + _OUTLIER * max(spread, 0.02))
