"""From a model's address to the engine that serves it."""

from __future__ import annotations

from pathlib import Path

from unetexp.errors import ConfigError, UserError
from unetexp.runtimes.flavors import file_of_flavor
from unetexp.runtimes.runtime import format_of
from unetexp.serving.engine import Engine


def open_engine(
    address: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    flavor: str | None = None,
    tracking_uri: str | None = None,
) -> Engine:
    """The engine of the model at `address`, or of an exported file. Raises UserError.

    `flavor` as in `unetexp.load`. An exported file needs its runtime and no torch.
    """
    from unetexp.serving.file_engine import file_engine

    path = Path(address).expanduser()
    if path.is_file() and format_of(path) is not None:
        if flavor is not None:
            raise ConfigError(f"--flavor {flavor}: {address} is one exported file. Leave it out.")
        return file_engine(path, path.name, device, threads)
    try:
        from unetexp.loading import model_folder
        from unetexp.serving.torch_engine import torch_engine  # takes seconds to import
    except ImportError as error:
        raise UserError(
            f"{address}: this is no exported file, and other models need {error.name}, which is "
            "not installed here. Give the path of a file that `unetexp export` has written."
        ) from None
    folder = model_folder(address, tracking_uri)
    file = file_of_flavor(folder, flavor)
    if file is not None:
        return file_engine(file, address, device, threads)
    return torch_engine(folder, address, device, threads)
