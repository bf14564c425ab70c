"""The body of a request: received within limits, and decoded to images by its content."""

from __future__ import annotations

import asyncio
import io
import json
import math
from http import HTTPStatus
from tokenize import TokenError
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from unetexp.errors import DataError
from unetexp.inference.payloads import Payload, read_payload
from unetexp.models.image_spec import ImageSpec
from unetexp.serving.refusal import Refusal
from unetexp.serving.settings import ServingSettings

JSON = "application/json"
NPY = "application/x-npy"
# curl sends --data-binary as a form unless it is told otherwise.
_BINARY = (
    *("image/png", "image/jpeg", "image/jpg", NPY, "application/octet-stream", ""),
    "application/x-www-form-urlencoded",
)
_NPY_MAGIC = b"\x93NUMPY"
_DISCARD_S = 10.0
_SEND = (
    "Send a PNG or JPEG file or a .npy array as it is (curl --data-binary @FILE), or JSON as "
    '{"inputs": ...}.'
)


async def receive(request: Request, settings: ServingSettings) -> bytes:
    """The whole body; Refusal if it is too large or too slow."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > settings.max_bytes:
        raise await _too_large(request, settings)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_bytes:
                    raise await _too_large(request, settings)
    except TimeoutError:
        raise Refusal(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the request has not arrived within {settings.body_timeout_s:g} s: send less, or "
            "over a faster connection.",
        ) from None
    return bytes(body)


async def discard(request: Request) -> None:
    """Read what is left of the body for a while and drop it.

    A client that is still sending when the connection closes would not see the answer. One that
    waits to be told to continue sends nothing.
    """
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    try:
        async with asyncio.timeout(_DISCARD_S):
            async for _ in request.stream():
                pass
    except (TimeoutError, RuntimeError):  # too slow; or it was read to its end before
        pass


async def _too_large(request: Request, settings: ServingSettings) -> Refusal:
    await discard(request)
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the request is larger than {settings.max_mb:g} MB (1 MB is 1,000,000 bytes), which is "
        "the most that is accepted here: send a smaller image, or start the server with a larger "
        "--max-mb.",
    )


def decoded(body: bytes, content_type: str, spec: ImageSpec, max_pixels: int) -> Payload:
    """The images in a body. Raises Refusal for another type of content, DataError for the rest."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == JSON:
        return read_payload(json_inputs(body), spec, max_pixels)
    if kind not in _BINARY:
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type {kind} is not accepted. {_SEND}"
        )
    if not body:
        raise DataError(f"the request has no body. {_SEND}")
    return read_payload(_array(body) if body.startswith(_NPY_MAGIC) else body, spec, max_pixels)


def json_inputs(body: bytes) -> Any:
    """What stands under the key `inputs`, as in MLflow's scoring server. Raises DataError."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body is not JSON ({error}). {_SEND}") from None
    if not isinstance(tree, dict) or "inputs" not in tree:
        found = ", ".join(map(str, tree)) if isinstance(tree, dict) else f"a {type(tree).__name__}"
        raise DataError(
            f'the body must be a mapping with the key "inputs", and holds {found or "no key"}.'
        )
    return tree["inputs"]


def _array(body: bytes) -> NDArray[Any]:
    """The array in a .npy file, without the pickles that NumPy's own reader may load."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(file)
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"its shape is {shape}")
    except (ValueError, KeyError, TypeError, SyntaxError, TokenError) as error:
        raise DataError(f"this is not a .npy file that can be read: {error}.") from None
    if 0 in shape:
        raise DataError(f"the .npy file holds an array of the shape {shape}: it has no values.")
    if dtype.kind not in "uif":
        raise DataError(
            f"the .npy file holds {dtype}. Send numbers, as uint8 (0 to 255) or uint16; objects "
            "are pickles, which are never loaded."
        )
    start = file.tell()
    if len(body) - start != math.prod(shape) * dtype.itemsize:
        raise DataError(
            f"the .npy file says that it holds {dtype} of the shape {shape}, and holds "
            f"{len(body) - start} bytes: it is truncated or damaged."
        )
    flat = np.frombuffer(body, dtype, offset=start).astype(dtype.newbyteorder("="), copy=False)
    return flat.reshape(shape, order="F" if fortran else "C")
