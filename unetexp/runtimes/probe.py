"""A probe image with what a file said of it when it was written.

A runtime of another version, or on another machine, that says something else is refused.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unetexp.component import Component

# Relative differences that other processors and versions may make; another model's is about 1.
TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 1e-1}


class PackedArray(Component):
    """An array as text."""

    dtype: str
    shape: tuple[int, ...]
    data: str = Field(description="its bytes, zlib, base64")

    @classmethod
    def of(cls, array: NDArray[Any]) -> Self:
        packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes()))
        return cls(dtype=array.dtype.str, shape=array.shape, data=packed.decode())

    def unpacked(self) -> NDArray[Any]:
        flat = np.frombuffer(zlib.decompress(base64.b64decode(self.data)), self.dtype)
        return flat.reshape(self.shape)


class Probe(Component):
    """An input of the network, and the output at export time."""

    given: PackedArray
    expected: PackedArray
    tolerance: float = Field(gt=0, description="the largest relative difference that is allowed")

    @classmethod
    def of(cls, given: NDArray[Any], expected: NDArray[Any], precision: str) -> Self:
        return cls(
            given=PackedArray.of(given),
            expected=PackedArray.of(expected),
            tolerance=TOLERANCES[precision],
        )

    def difference(self, found: NDArray[Any]) -> float:
        """Of an output to the expected one: 0 if they are equal, about 1 for another model's.

        Of logits the root mean square, in standard deviations of the expected ones; of label maps
        the share of pixels. Infinite for another shape and for values that are not finite.
        """
        expected = self.expected.unpacked()
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        if expected.dtype.kind in "iu":
            return float((found != expected).mean())
        error = found.astype(np.float64) - expected
        spread = float(expected.astype(np.float64).std())
        return float(np.sqrt((error**2).mean())) / max(spread, 1e-12)
