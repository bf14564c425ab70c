"""Files named by URIs such as s3://bucket/image.png, fetched once a node into the cache folder.

    <cache folder>/fetched/<hash of the URI>/<file name>    complete, or the folder is absent
    <cache folder>/fetched/<hash of the URI>/record.json    what the server said about it

A file is fetched into a scratch folder, checked for its size and renamed into place, so that a
killed fetch leaves nothing that is believed. It is fetched again when the server tells of another
size, tag or time than the record. Credentials are those of fsspec: for S3 the AWS_ variables, or
FSSPEC_S3='{"anon": true}' for public buckets. They are in no configuration and in no record.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import fsspec
from filelock import FileLock, Timeout
from fsspec.registry import known_implementations

from unetexp.data.cache_folder import cache_folder, explained_write_errors
from unetexp.data.collection import Progress
from unetexp.data.threads import mapped_and_told
from unetexp.errors import DataError, listed, not_a_choice
from unetexp.network import reason

_RECORD = "record.json"
_TELLS = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "created", "md5Hash")
_EXTRAS = {"s3": "s3", "s3a": "s3"}  # protocol: the extra of ours that brings its package
_STALE_S = 24 * 3600


def is_uri(place: str) -> bool:
    """Whether `place` is a URI and not a path on this machine."""
    return "://" in place


def fetched_folder() -> Path:
    """The folder of all fetched files on this machine."""
    return cache_folder() / "fetched"


def fetched(uris: Sequence[str], on_progress: Progress | None = None) -> dict[str, Path]:
    """Where the files of `uris` lie on this machine, fetched if they are not there or not current.

    One process of a node fetches a set, the others wait for it. Raises DataError for a protocol
    that is unknown or whose package is missing, for files that do not exist, and for a server that
    does not answer (unless the file was fetched before: then that one is used).
    """
    wanted = list(dict.fromkeys(uris))
    places = _found(wanted, on_progress)
    missing = [uri for uri in wanted if uri not in places]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(wanted)} files do not exist: {listed(missing)}. Correct "
            "the addresses, or put the files there."
        )
    return {uri: places[uri] for uri in wanted}


def fetched_if_there(uri: str) -> Path | None:
    """As `fetched`, of one file; None if the server has none."""
    return _found([uri], None).get(uri)


def _found(wanted: Sequence[str], on_progress: Progress | None) -> dict[str, Path]:
    """Where the files lie that exist."""
    remote = [uri for uri in wanted if urlsplit(uri).scheme != "file"]
    for protocol in sorted({urlsplit(uri).scheme for uri in remote}):
        _file_system(protocol).invalidate_cache()
    places = {uri: _local_path(uri) for uri in wanted if uri not in remote}
    if remote:
        with _alone(remote, on_progress):
            _remove_stale()
            found = mapped_and_told(_fetched, remote, "Fetching files", on_progress)
            arrived = zip(remote, found, strict=True)
            places.update((uri, path) for uri, path in arrived if path is not None)
    return places


def _local_path(uri: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path))


def _file_system(protocol: str) -> Any:
    """fsspec's file system; DataError where the protocol or its package is not there."""
    if protocol not in fsspec.available_protocols():
        raise DataError(not_a_choice(f"{protocol}://", protocol, sorted(known_implementations)))
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        install = f"pip install 'unetexp[{extra}]', which brings s3fs" if extra else str(error)
        raise DataError(
            f"{protocol}:// addresses need a package that is not installed: {install}."
        ) from None
    except Exception as error:  # such as credentials that are not there
        raise DataError(f"{protocol}:// cannot be used: {reason(error)}.") from error


@contextmanager
def _alone(uris: Sequence[str], on_progress: Progress | None) -> Iterator[None]:
    """Hold this node's lock of the set."""
    key = hashlib.sha256("\n".join(sorted(uris)).encode()).hexdigest()[:32]
    with explained_write_errors():
        fetched_folder().mkdir(parents=True, exist_ok=True)
        lock = FileLock(fetched_folder() / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_progress:
                on_progress("Waiting for another process that fetches", 0, len(uris))
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_stale() -> None:
    """Remove what killed fetches left behind."""
    for scratch in fetched_folder().glob("*.fetching-*"):
        if time.time() - scratch.stat().st_mtime > _STALE_S:
            shutil.rmtree(scratch, ignore_errors=True)


def _fetched(uri: str) -> Path | None:
    """The file of one URI on this machine, None if the server has no such file."""
    place = fetched_folder() / hashlib.sha256(uri.encode()).hexdigest()[:32]
    name = Path(unquote(urlsplit(uri).path)).name or "file"
    known = _record(place, name)
    try:
        system, path = fsspec.core.url_to_fs(uri)
        told = _told(system.info(path))
    except FileNotFoundError:
        return None
    except Exception as error:  # each file system raises its own kinds
        if known is not None:
            return place / name
        raise _unfetched(uri, error) from None
    if known != told:
        _fetch(uri, system, path, told, place / name)
    return place / name


def _told(info: Mapping[str, Any]) -> dict[str, str]:
    """What a server says about a file that changes when the file does."""
    return {key: str(info[key]) for key in _TELLS if info.get(key) is not None}


def _record(place: Path, name: str) -> dict[str, str] | None:
    """What the server said when `name` was fetched; None unless it is there in full."""
    try:
        record: dict[str, str] = json.loads((place / _RECORD).read_text("utf-8"))
        size = (place / name).stat().st_size
    except (OSError, ValueError):
        return None
    return record if record.get("size", str(size)) == str(size) else None


def _fetch(uri: str, system: Any, path: str, told: Mapping[str, str], target: Path) -> None:
    place = target.parent
    scratch = place.with_name(f"{place.name}.fetching-{uuid.uuid4().hex}")
    with explained_write_errors():
        scratch.mkdir()
    try:
        try:
            system.get_file(path, str(scratch / target.name))
        except Exception as error:
            raise _unfetched(uri, error) from None
        size = (scratch / target.name).stat().st_size
        if told.get("size", str(size)) != str(size):
            raise DataError(
                f"{uri}: {size} bytes arrived, but the server says that the file has "
                f"{told['size']}: it was cut off, or changed meanwhile. Start again."
            )
        with explained_write_errors():
            (scratch / _RECORD).write_text(json.dumps(dict(told)), "utf-8")
            shutil.rmtree(place, ignore_errors=True)
            scratch.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unfetched(uri: str, error: Exception) -> DataError:
    return DataError(
        f"{uri}: this file cannot be fetched: {reason(error)}. Check the address, the network and "
        "the credentials (for s3:// the AWS_ variables, or FSSPEC_S3='{\"anon\": true}' for a "
        "public bucket)."
    )
