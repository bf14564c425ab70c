"""Standard output and error whose reader may disappear: a lost ssh session, a closed pipe."""

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
    """A stream that drops its output once nobody can read it, and logs that once."""

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
        """Discard the buffered and all later output; raise errors of other kinds."""
        if error.errno not in _LOST:
            raise error
        devnull = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(devnull, self._stream.fileno())
        except io.UnsupportedOperation:  # a stream without a file: it buffers nothing
            pass
        finally:
            os.close(devnull)
        log.warning("the terminal or the pipe is closed (%s): no further output is shown", error)


@contextmanager
def output_may_be_lost() -> Iterator[None]:
    """Let a command in this block end normally, even if nobody reads its output any more."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Output(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
