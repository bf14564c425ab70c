"""Requests with a time limit, so that a server that does not answer blocks nothing."""

from __future__ import annotations

import queue
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError


def no_answer(url: str, patience_s: float) -> str | None:
    """Why the first byte of `url` does not arrive within `patience_s` seconds, or None if it does.

    The request runs in its own thread, because no timeout covers the lookup of a host name.
    """
    outcome: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with urllib.request.build_opener().open(url, timeout=patience_s) as response:
                outcome.put(None if response.read(1) else "the answer is empty")
        except Exception as error:  # every error is a reason
            outcome.put(reason(error))

    threading.Thread(target=ask, name="network-probe", daemon=True).start()
    try:
        return outcome.get(timeout=patience_s)
    except queue.Empty:
        return f"no answer within {patience_s:g} s"


def reason(error: Exception) -> str:
    """The message of a network error, without urllib's wrapper."""
    cause = error.reason if isinstance(error, URLError) else error
    return str(cause) or type(cause).__name__


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """A time limit for each wait on a new socket, for downloads that set none themselves."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
