"""What a request asks for, and the answer's bytes.

N images, C channels, K classes, H W image size.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetexp.data.collection import RawImage
from unetexp.data.painting import displayable, paint
from unetexp.errors import ConfigError, not_a_choice
from unetexp.inference.conforming import full_scale
from unetexp.inference.payloads import Payload
from unetexp.models.image_spec import ImageSpec
from unetexp.serving.bodies import JSON, NPY
from unetexp.serving.engine import Prediction
from unetexp.serving.refusal import Refusal

As = Literal["labels", "probabilities", "overlay"]
PNG = "image/png"
_MEDIA: dict[As, tuple[str, ...]] = {  # the usual one first
    "labels": (PNG, NPY, JSON),
    "probabilities": (NPY,),
    "overlay": (PNG,),
}
_ALIASES = {"application/octet-stream": NPY, "application/x-numpy": NPY}
_FAST = 1  # zlib's level: the file is sent once


@dataclass(frozen=True)
class Wanted:
    """What is asked for, and in which form."""

    what: As
    media: str


def wanted(what: str, accept: str, payload_form: str = "one") -> Wanted:
    """By the parameter `as` and the header Accept.

    Several images are answered as an array. Raises ConfigError for another `as`, and Refusal
    where no form of it is accepted.
    """
    if what not in get_args(As):
        raise ConfigError(not_a_choice("as", what, get_args(As)))
    kind = cast(As, what)
    media = [m for m in _MEDIA[kind] if payload_form == "one" or m != PNG]
    if not media:
        raise ConfigError("an overlay is of one image: send the images one by one.")
    for accepted in _by_preference(accept):
        for offered in media:
            if _matches(accepted, offered):
                return Wanted(kind, offered)
    raise Refusal(
        HTTPStatus.NOT_ACCEPTABLE,
        f"Accept: {accept}: {what} are answered as {' or '.join(media)}.",
    )


def _by_preference(accept: str) -> list[str]:
    """The media ranges of an Accept header, the most wanted first."""
    ranges = []
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        if media and weight > 0:
            ranges.append((weight, _ALIASES.get(media, media)))
    ranges.sort(key=lambda each: -each[0])
    return [media for _, media in ranges]


def _matches(accepted: str, offered: str) -> bool:
    kind, _, name = accepted.partition("/")
    return accepted in ("*/*", "*", offered) or (name == "*" and offered.startswith(f"{kind}/"))


def shares(labels: NDArray[np.uint8], classes: int) -> list[float]:
    """The share of the pixels that each class has."""
    counts = np.bincount(labels.ravel(), minlength=classes)
    return [round(float(count) / labels.size, 6) for count in counts]


def content(
    asked: Wanted, payload: Payload, predictions: Sequence[Prediction], spec: ImageSpec
) -> bytes:
    """The answer's body."""
    if asked.media == PNG:
        (prediction,) = predictions
        if asked.what == "labels":
            return _png(prediction.labels)
        return _png(_overlay(payload.images[0], prediction.labels, spec))
    if asked.media == JSON:
        return json.dumps(_described(payload, predictions, spec)).encode()
    each = [_array(asked, prediction) for prediction in predictions]
    file = io.BytesIO()
    np.save(file, each[0] if payload.form == "one" else np.stack(each))
    return file.getvalue()


def _array(asked: Wanted, prediction: Prediction) -> NDArray[Any]:
    if asked.what == "labels":
        return prediction.labels
    assert prediction.probabilities is not None
    return prediction.probabilities


def _described(
    payload: Payload, predictions: Sequence[Prediction], spec: ImageSpec
) -> dict[str, Any]:
    answer = payload.answer([prediction.labels for prediction in predictions])
    found = [shares(prediction.labels, len(spec.class_names)) for prediction in predictions]
    labels = answer.tolist() if isinstance(answer, np.ndarray) else [m.tolist() for m in answer]
    return {
        "classes": list(spec.class_names),
        "shares": found[0] if payload.form == "one" else found,
        "labels": labels,
    }


def _overlay(image: RawImage, labels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    return paint(displayable(image, full_scale(image.itemsize, spec)), labels)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=_FAST)
    return file.getvalue()
