"""Data sets that torchvision downloads: completely or not at all, once a machine."""

from __future__ import annotations

import shutil
import tarfile
import uuid
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from unetexp.data.cache_folder import cache_folder
from unetexp.network import no_answer, reason, socket_timeout


class DownloadFailedError(Exception):
    """Why a download did not succeed: the source turns it into its message."""


def download_folder(root: str | None) -> Path:
    """Where sets are downloaded to: the folder that was chosen, or one in the cache folder."""
    return Path(root) if root else cache_folder() / "downloads"


def download(
    parent: Path, folder: str, site: str, fetch: Callable[[Path], object], patience_s: float
) -> None:
    """Put `fetch(scratch)`/`folder` at `parent`/`folder`, unless it is there meanwhile.

    Raises DownloadFailedError with the reason, soon if `site` does not answer.
    """
    if why := no_answer(site, patience_s):
        raise DownloadFailedError(why)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f"{folder}.lock"):
            if (parent / folder).is_dir():
                return
            scratch = parent / f"{folder}.new-{uuid.uuid4().hex}"
            try:
                with socket_timeout(patience_s):
                    fetch(scratch)
                (scratch / folder).rename(parent / folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except (OSError, RuntimeError, HTTPException, EOFError, tarfile.TarError) as error:
        raise DownloadFailedError(reason(error)) from None
