"""Content hashes: of files, and of what is known about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from unetexp.data.collection import Progress
from unetexp.data.threads import mapped_and_told
from unetexp.errors import DataError

_NONE: Mapping[Path, str] = {}
_known: ContextVar[Mapping[Path, str]] = ContextVar("known_digests", default=_NONE)


@contextmanager
def known_digests(digests: Mapping[Path, str]) -> Iterator[None]:
    """Take these hashes as those of the files, which are not read for them again."""
    token = _known.set(digests)
    try:
        yield
    finally:
        _known.reset(token)


def file_digests(paths: Sequence[Path], on_progress: Progress | None = None) -> list[str]:
    """The SHA-256 of each file's content. Raises DataError for a file that cannot be read."""
    known = _known.get()

    def digest(path: Path) -> str:
        return known.get(path) or _digest(path)

    return list(mapped_and_told(digest, paths, "Checking files", on_progress))


def content_hash(content: object) -> str:
    """The SHA-256 of JSON-safe values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read: {error.strerror}.") from None
