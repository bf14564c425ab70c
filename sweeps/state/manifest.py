"""The manifest: what a sweep was started with, in `sweep.json` beside its ledger, for resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unetexp.compute.measured import Measured
from unetexp.errors import CheckpointError

_FILE = "sweep.json"


class SweepManifest(BaseModel):
    """What a sweep was started with, and what a later resume has changed."""

    model_config = ConfigDict(extra="forbid")

    name: str
    recipe_asked: str  # a shipped recipe's name or a file's absolute path
    changes: dict[str, Any]  # by dotted path, from the command line
    data_asked: str | None
    gpus: int | None
    simulate_gpus: int | None
    recipe: dict[str, Any]  # all of it, before the weights were resolved
    weights: str  # what encoder.weights was resolved to
    encoder_weights: dict[str, str] = Field(default_factory=dict)  # by the encoder's full name
    added_space: dict[str, Any] = Field(default_factory=dict)  # dimensions, for lack of weights
    data_fingerprint: str
    data: dict[str, Any]  # the data set's summary
    storage: str
    estimated_s: float | None = None  # wall time, if a preflight measured
    measured: tuple[Measured, ...] = ()  # by the preflight; a resume computes as it chose
    growths: list[dict[str, Any]] = Field(default_factory=list)  # changes of its space, in order
    driver_starts: list[float] = Field(default_factory=list)  # seconds since 1970, one a driver

    def write(self, folder: Path) -> None:
        """Replace the manifest in `folder` atomically."""
        scratch = folder / f".{_FILE}"
        scratch.write_text(self.model_dump_json(indent=2), encoding="utf-8")
        scratch.replace(folder / _FILE)


def has_manifest(folder: Path) -> bool:
    """Whether a sweep's manifest is in `folder`."""
    return (folder / _FILE).is_file()


def read_manifest(folder: Path) -> SweepManifest:
    """The manifest of the sweep in `folder`; CheckpointError where it is missing or unreadable."""
    path = folder / _FILE
    try:
        return SweepManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            f"{path}: the manifest of this sweep cannot be read ({error}). Resume a sweep on the "
            "machine that it was started on, or where its --storage is available."
        ) from None
