"""One promotion at a time on a machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from sweeps.tracking.store import TrackingStore
from unetexp.errors import UserError
from unetexp.tracking.server import scheme_of
from unetexp.tracking.uri import sqlite_path


@contextmanager
def promotion_lock(
    store: TrackingStore, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """A block for one promotion at a time, of all on this machine into this store.

    `on_wait` is called once, with a message, if another one has to be waited for.
    """
    lock = FileLock(_lock_file(store))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait:
            on_wait("another promotion is running on this machine: waiting until it has ended")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock_file(store: TrackingStore) -> Path:
    """Beside a local database; for a server, in the user's cache folder."""
    if scheme_of(store.uri) == "sqlite":
        return Path(f"{sqlite_path(store.uri)}-promotion-lock")
    place = platformdirs.user_cache_path("unetexp") / "promotion-locks"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder for locks {place} cannot be created: {error}. Set XDG_CACHE_HOME to "
            "another cache folder."
        ) from None
    return place / hashlib.sha256(store.uri.encode()).hexdigest()[:16]
