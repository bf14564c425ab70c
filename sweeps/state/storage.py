"""Where a sweep's trials keep their files: a folder that every node sees, or a URI such as S3's.

With a folder trials write straight into it. With a URI they write to a local scratch folder that
is copied from the URI once, and whose changes are then copied to it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pyarrow import fs

from sweeps.state.ledger import FILE
from unetexp.errors import UserError

_DISK = fs.LocalFileSystem()
_FULL_DISK = (
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter failed",  # torch.save, with another message where it can close the file
    "unexpected pos",
    "iostream error",
)


def is_full_disk(error: BaseException) -> bool:
    """Whether writing failed because no space, or no quota, was left."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # torch, safetensors and Ray raise with a message, without the errno.
    return any(sign in str(error) for sign in _FULL_DISK)


@dataclass
class TrialFolder:
    """A trial's folder on this machine, and its copy in a remote storage if there is one.

    Nobody else writes to the copy meanwhile, so what was sent is there.
    """

    path: Path
    remote: str | None = None
    _there: Listing = field(default_factory=dict)

    def fetch(self) -> None:
        """Download the copy."""
        if self.remote is not None:
            system, place = fs.FileSystem.from_uri(self.remote)
            if system.get_file_info(place).type == fs.FileType.Directory:
                fs.copy_files(place, str(self.path), source_filesystem=system)
            self._there = _listing(self.path)

    def publish(self) -> None:
        """Send what was created or changed since the last call, and remove what was removed."""
        if self.remote is None:
            return
        system, place = fs.FileSystem.from_uri(self.remote)
        here, there = _listing(self.path), self._there
        gone = _gone(here, there)
        for path in gone:
            if path in here:  # a folder was replaced by a file, or a file by a folder
                _remove(system, f"{place}/{path}", there[path])
        system.create_dir(place, recursive=True)
        for path, state in sorted(here.items()):
            if path in there and state == there[path]:
                continue
            if state is None:
                system.create_dir(f"{place}/{path}", recursive=True)
            else:
                fs.copy_files(
                    str(self.path / path), f"{place}/{path}", _DISK, destination_filesystem=system
                )
        # Last, so that a crash before leaves the old checkpoints with the new one.
        for path in gone:
            if path not in here:
                _remove(system, f"{place}/{path}", there[path])
        self._there = here


# Paths below a folder -> what tells that a file has changed; None for a folder
Listing = dict[str, tuple[int, ...] | None]


def _listing(root: Path) -> Listing:
    """All that is below `root`, but for what is being written (hidden until it is complete)."""
    found: Listing = {}
    for where, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(where).relative_to(root)
        found |= {(below / name).as_posix(): None for name in folders}
        for name in names:
            stat = Path(where, name).stat()
            changes = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            found[(below / name).as_posix()] = changes
    return found


def _gone(here: Listing, there: Listing) -> list[str]:
    """The paths to remove from `there`, but for what is in a removed folder."""
    gone = {
        path
        for path, state in there.items()
        if path not in here or (here[path] is None) != (state is None)
    }
    return [p for p in gone if not any(str(parent) in gone for parent in PurePosixPath(p).parents)]


def _remove(system: fs.FileSystem, path: str, state: tuple[int, ...] | None) -> None:
    with suppress(FileNotFoundError):
        if state is None:
            system.delete_dir(path)
        else:
            system.delete_file(path)


@dataclass(frozen=True)
class Storage:
    """The place of one sweep's files."""

    root: str  # an absolute path or a URI
    scratch: str = field(default_factory=tempfile.gettempdir)

    @property
    def is_remote(self) -> bool:
        return "://" in self.root

    @contextmanager
    def trial_folder(self, trial: str) -> Iterator[TrialFolder]:
        """The trial's folder for writing; it is downloaded first where the storage is remote."""
        if not self.is_remote:
            yield TrialFolder(Path(self.root) / "trials" / trial)
            return
        with tempfile.TemporaryDirectory(dir=self.scratch) as scratch:
            folder = TrialFolder(Path(scratch), f"{self.root}/trials/{trial}")
            folder.fetch()
            yield folder
            folder.publish()

    def local_copy(self, trial: str) -> Path:
        """The trial's files for reading, on this machine."""
        if not self.is_remote:
            return Path(self.root) / "trials" / trial
        copy = Path(self.scratch) / "unetexp-trials" / Path(self.root).name / trial
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
        TrialFolder(copy, f"{self.root}/trials/{trial}").fetch()
        return copy

    def checkpoint_epoch(self, trial: str) -> int:
        """The epoch after which the trial can resume; 0 if it has to start again."""
        if self.is_remote:
            system, path = fs.FileSystem.from_uri(self.root)
            below = fs.FileSelector(f"{path}/trials/{trial}", allow_not_found=True)
            names = [info.base_name for info in system.get_file_info(below)]
        else:
            names = [folder.name for folder in (Path(self.root) / "trials" / trial).glob("epoch-*")]
        return max(
            (int(n.removeprefix("epoch-")) for n in names if n.startswith("epoch-")), default=0
        )

    def forget_resume_state(self, trial: str) -> None:
        """Remove the checkpoints, which only a resumed trial needs; the best model is kept."""
        if not self.is_remote:
            for folder in (Path(self.root) / "trials" / trial).glob("epoch-*"):
                shutil.rmtree(folder, ignore_errors=True)
            return
        system, path = fs.FileSystem.from_uri(self.root)
        below = fs.FileSelector(f"{path}/trials/{trial}", allow_not_found=True)
        for info in system.get_file_info(below):
            if info.base_name.startswith("epoch-"):
                system.delete_dir(info.path)

    def remove_file(self, trial: str, name: str) -> None:
        """Remove one of the trial's files, if it is there."""
        system, path = fs.FileSystem.from_uri(self.root) if self.is_remote else (_DISK, self.root)
        with suppress(FileNotFoundError):
            system.delete_file(f"{path}/trials/{trial}/{name}")

    def set_aside(self, kept: Collection[str], name: str) -> int:
        """Move the files of all trials except `kept` into the folder `name`; returns how many."""
        system, path = fs.FileSystem.from_uri(self.root) if self.is_remote else (_DISK, self.root)
        below = fs.FileSelector(f"{path}/trials", allow_not_found=True)
        lost = [info for info in system.get_file_info(below) if info.base_name not in kept]
        for info in lost:
            place = f"{path}/{name}/{info.base_name}"
            if self.is_remote:  # an object store has no folders to rename
                fs.copy_files(
                    info.path, place, source_filesystem=system, destination_filesystem=system
                )
                system.delete_dir(info.path)
            else:
                system.create_dir(f"{path}/{name}")
                system.move(info.path, place)
        return len(lost)

    def require_writable(self) -> None:
        """Write and remove a file; UserError names the place and what went wrong."""
        try:
            if self.is_remote:
                system, path = fs.FileSystem.from_uri(self.root)
                system.create_dir(path, recursive=True)
                with system.open_output_stream(f"{path}/.writable") as stream:
                    stream.write(b"yes")
                system.delete_file(f"{path}/.writable")
            else:
                folder = Path(self.root)
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with tempfile.TemporaryFile(dir=folder):
                    os.utime(folder)
        except (OSError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"storage {self.root}: it cannot be written to ({error}). Choose another place "
                "with --storage."
            ) from None


_SIGNS = {FILE, "sweep.json", "trials"}


def is_remote(place: str) -> bool:
    return "://" in place


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`, links not followed; 0 if there is none."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(where, name).lstat().st_size
            except FileNotFoundError:  # a running sweep's files come and go
                continue
    return total


def require_sweep_files(place: str, name: str) -> None:
    """Raise UserError unless `place` is gone, empty, or holds the files of the sweep `name`."""
    if is_remote(place):
        system, path = fs.FileSystem.from_uri(place)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        content = {info.base_name for info in found}
    else:
        folder = Path(place)
        if not folder.exists() and not folder.is_symlink():
            return
        if folder.is_symlink() or not folder.is_dir():
            raise _not_ours(place, name)
        content = {entry.name for entry in folder.iterdir()}
    if place.rstrip("/").rpartition("/")[2] != name or (content and not content & _SIGNS):
        raise _not_ours(place, name)


def remove_files(place: str) -> None:
    """Remove a folder, or everything below a URI, if it exists."""
    if not is_remote(place):
        remove_folder(Path(place))
        return
    system, path = fs.FileSystem.from_uri(place)
    if system.get_file_info(path).type != fs.FileType.NotFound:
        system.delete_dir(path)


def remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _not_ours(place: str, name: str) -> UserError:
    return UserError(
        f"{place} is recorded as the storage of sweep {name!r} but does not hold a sweep's files. "
        "Nothing was deleted. Move that folder away, then delete the sweep again."
    )
