"""Standard output and error whose other end may go away: a dropped ssh session, an ended pipe."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

_LOST = (errno.EIO, errno.EPIPE, errno.ENXIO)


class _Output:
    """A stream that drops what nobody can read any more, and says so once in the log."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        """Lead what is still buffered, and all that follows, nowhere; other errors are raised."""
        if error.errno not in _LOST:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self._stream.fileno())
        except io.UnsupportedOperation:  # a stream of no file: it buffers nothing
            pass
        finally:
            os.close(nowhere)
        log.warning("the terminal or the pipe is gone (%s): nothing is shown from here on", error)


@contextmanager
def output_may_be_lost() -> Iterator[None]:
    """A command in this block ends as it would if its output were still read."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Output(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
