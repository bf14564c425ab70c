"""`driver.log` in a sweep's folder: log messages of its driver, which the terminal omits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRIVER_LOG = "driver.log"


@contextmanager
def driver_log(folder: Path) -> Iterator[None]:
    """Append what our modules log, at level INFO and above, to the folder's file."""
    handler = logging.FileHandler(folder / DRIVER_LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("sweeps", "unetexp")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
