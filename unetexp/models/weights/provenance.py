"""Where initial weights came from, as it is recorded in runs and in saved models."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

UNKNOWN = "unknown"
_RANDOM = "none: the encoder started from random weights"


@dataclass(frozen=True)
class Provenance:
    """What the weights are, the file they were read from, its hash and its licence."""

    source: str
    file: str = ""
    sha256: str = ""
    license: str = ""

    @property
    def pretrained(self) -> bool:
        return bool(self.sha256)

    def record(self) -> dict[str, str]:
        """The fields that are known, by name."""
        return {name: value for name, value in asdict(self).items() if value}

    def describe(self) -> str:
        """One line for people."""
        if not self.pretrained:
            return self.source
        return f"{self.source}, file {self.file}, sha256 {self.sha256}, licence {self.license}"


RANDOM = Provenance(_RANDOM)


def of_file(path: Path, source: str, license: str = UNKNOWN) -> Provenance:
    """The provenance of weights that are in the file at `path`."""
    return Provenance(source, path.name, sha256_of(path), license)


def sha256_of(path: Path) -> str:
    """The hash of a file, computed once as long as the file does not change."""
    status = path.stat()
    return _sha256(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _sha256(path: Path, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
