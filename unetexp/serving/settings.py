"""The limits of a server, and how it puts requests together."""

from __future__ import annotations

from pydantic import Field

from unetexp.component import Component
from unetexp.data.reading.formats.raster import MAX_PIXELS


class ServingSettings(Component):
    """What is accepted, and what is predicted together."""

    max_mb: float = Field(20.0, gt=0, le=1000, description="largest request, in megabytes")
    max_pixels: int = Field(
        2**24, ge=1, le=MAX_PIXELS, description="most pixels of the images of a request"
    )
    batch_size: int = Field(8, ge=1, le=256, description="most images in one pass of the model")
    batch_wait_ms: float = Field(
        3.0, ge=0, le=1000, description="how long an image waits for others of its size"
    )
    queue: int = Field(
        32, ge=1, le=10_000, description="most requests at a time; others are answered with 503"
    )
    body_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="how long a request may take to arrive"
    )
    host_names: tuple[str, ...] = Field(
        (), description="names besides addresses and localhost by which the server may be called"
    )

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1_000_000)
