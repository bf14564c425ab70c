"""Folders whose paths are short enough for the sockets in them.

The path of a Unix socket has at most 107 bytes on Linux and 103 on macOS. A batch job's temporary
folder may already be too long for that.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def fits(folder: Path, longest: int) -> bool:
    """Whether the path has at most `longest` bytes and is, or can become, a writable folder."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return usable and len(os.fsencode(folder)) <= longest


def short_parents(longest: int) -> list[Path]:
    """The usual folders for temporary files with paths of at most `longest` bytes, best first."""
    usual = [tempfile.gettempdir(), "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR")]
    folders = [Path(each) for each in [*usual, str(Path.home())] if each]
    return [folder for folder in folders if folder.is_dir() and fits(folder, longest)]
