"""From a model's address to the engine that serves it."""

from __future__ import annotations

from pathlib import Path

from unetexp.errors import UserError
from unetexp.runtimes.runtime import format_of
from unetexp.serving.engine import Engine


def open_engine(
    address: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    tracking_uri: str | None = None,
) -> Engine:
    """The engine of the model at `address`, or of an exported file. Raises UserError.

    An exported file needs its runtime and no torch.
    """
    path = Path(address).expanduser()
    if path.is_file() and format_of(path) is not None:
        from unetexp.serving.file_engine import file_engine

        return file_engine(path, device, threads)
    try:
        from unetexp.serving.torch_engine import torch_engine  # takes seconds to import
    except ImportError as error:
        raise UserError(
            f"{address}: this is no exported file, and other models need {error.name}, which is "
            "not installed here. Give the path of a file that `unetexp export` has written."
        ) from None
    return torch_engine(address, device, threads, tracking_uri)
