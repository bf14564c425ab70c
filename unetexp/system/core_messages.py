"""What a library's C++ code writes to standard error, past Python's streams and log levels."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

log = logging.getLogger(__name__)

_STDERR = 2
# [2026-11-28 02:47:40,066 E 26209 26365] task_manager.cc:1545: Failed to push error to driver ...
_MESSAGE = re.compile(rb"^\[[\d-]+ [\d:,]+ [DIWE] \d+ \d+\] \w+\.cc:\d+: ")


@contextmanager
def core_messages_logged() -> Iterator[None]:
    """Log the lines of Ray's C++ core instead of showing them; other lines are shown at the end.

    For its shutdown, where the core reports, as errors, connections that we have just ended. Fatal
    messages are shown.
    """
    with ExitStack() as open_files:
        try:
            written = open_files.enter_context(tempfile.TemporaryFile())
            terminal = os.dup(_STDERR)
        except OSError:  # no room for a file, or nothing is shown anyway
            yield
            return
        open_files.callback(os.close, terminal)
        os.dup2(written.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, _STDERR)
            written.seek(0)
            _pass_on(written.read())


def _pass_on(output: bytes) -> None:
    for line in output.splitlines(keepends=True):
        if _MESSAGE.match(line):
            log.info("Ray, while it ended: %s", line.decode(errors="replace").rstrip())
        else:
            sys.stderr.write(line.decode(errors="replace"))
    sys.stderr.flush()
