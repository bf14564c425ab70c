"""What a sweep was started with: `sweep.json` beside its ledger, from which it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unetexp.errors import CheckpointError

_FILE = "sweep.json"


class SweepManifest(BaseModel):
    """The start of a sweep, and what a later resume may have changed of it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    recipe_asked: str  # a shipped recipe's name or a file's absolute path
    changes: dict[str, Any]  # dotted, as the command line had them
    data_asked: str | None
    gpus: int | None
    simulate_gpus: int | None
    recipe: dict[str, Any]  # the whole, before the weights were settled
    weights: str  # what encoder.weights was settled to
    data_fingerprint: str
    data: dict[str, Any]  # the data set's summary
    storage: str
    estimated_s: float | None = None  # wall time, if a preflight measured
    driver_starts: list[float] = Field(default_factory=list)  # seconds since 1970, one a driver

    def write(self, folder: Path) -> None:
        """Replace the record in `folder`: the old one or the new one is there, never half of it."""
        scratch = folder / f".{_FILE}"
        scratch.write_text(self.model_dump_json(indent=2), encoding="utf-8")
        scratch.replace(folder / _FILE)


def read_manifest(folder: Path) -> SweepManifest:
    """The record of the sweep in `folder`; CheckpointError where there is none that can be read."""
    path = folder / _FILE
    try:
        return SweepManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            f"{path}: the record of this sweep cannot be read ({error}). A sweep is resumed on the "
            "machine that it was started on, or with its --storage at hand."
        ) from None
