"""Writes one MLflow run, within MLflow's limits on names, lengths and items per call.

Every call may be repeated after a failure: nothing is written twice.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sweeps.state.progress import TrialProgress
from sweeps.state.stop_reason import StopReason

if TYPE_CHECKING:
    from mlflow import MlflowClient


V = TypeVar("V")

_METRICS_PER_CALL, _ROWS_PER_CALL = 1000, 100
_LONGEST_NAME, _LONGEST_VALUE = 250, 6000
_PICTURE = re.compile(r"images/(?P<key>[^+]+)\+step\+(?P<step>\d+)\+.*\.webp$")  # written last


@dataclass
class RunWriter:
    """One run, opened by whoever holds its id."""

    client: MlflowClient
    run_id: str
    images: set[tuple[str, int]] = field(default_factory=set)  # (series, step) already written

    def log_params(self, params: Mapping[str, object]) -> None:
        """Write parameters, which cannot be changed later."""
        from mlflow.entities import Param

        named = legal_names(params)
        rows = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in named.items()]
        for some in _in_batches(rows, _ROWS_PER_CALL):
            self.client.log_batch(self.run_id, params=some)

    def log_metrics(self, metrics: Mapping[str, float], step: int, at_ms: int) -> None:
        """Write the finite `metrics` as points at `step`.

        Writing a point again with the same time changes nothing.
        """
        from mlflow.entities import Metric

        points = [
            Metric(name, float(value), at_ms, step)
            for name, value in legal_names(metrics).items()
            if math.isfinite(value)
        ]
        for some in _in_batches(points, _METRICS_PER_CALL):
            self.client.log_batch(self.run_id, metrics=some)

    def log_content(self, where: str, content: str | Path) -> None:
        """Write a text, or a copy of a file, as the artifact `where`."""
        folder, _, name = where.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, name)
            if isinstance(content, str):
                copy.write_text(content, encoding="utf-8")
            else:
                shutil.copyfile(content, copy)
            self.client.log_artifact(self.run_id, str(copy), folder or None)

    def log_path(self, path: Path, folder: str = "") -> None:
        """Write a file, or all files of a folder, below the artifact folder `folder`."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder or None)
        else:
            self.client.log_artifact(self.run_id, str(path), folder or None)

    def remove_folder(self, folder: str) -> None:
        """Remove an artifact folder; MlflowException if the artifact store cannot."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = f"{self.client.get_run(self.run_id).info.artifact_uri}/{folder}"
        repository = get_artifact_repository(place, tracking_uri=self.client.tracking_uri)
        repository.delete_artifacts()  # type: ignore[no-untyped-call]

    def log_image(self, picture: Path, key: str, step: int) -> None:
        """Add an image to the series `key`."""
        from PIL import Image

        if (key, step) in self.images:
            return
        with Image.open(picture) as image:
            self.client.log_image(self.run_id, image.convert("RGB"), key=key, step=step)
        self.images.add((key, step))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        from mlflow.entities import RunTag

        rows = [RunTag(key, str(value)) for key, value in tags.items()]
        for some in _in_batches(rows, _ROWS_PER_CALL):
            self.client.log_batch(self.run_id, tags=some)

    def reopen(self) -> None:
        """Set an ended run to running again."""
        if "stop_reason" in self.client.get_run(self.run_id).data.tags:
            self.client.delete_tag(self.run_id, "stop_reason")
        self.client.update_run(self.run_id, status="RUNNING")
        for entry in self.client.list_artifacts(self.run_id, "images"):
            if picture := _PICTURE.search(entry.path):
                self.images.add((picture["key"].replace("~", "/"), int(picture["step"])))

    def close(self, stop_reason: StopReason, note: str) -> None:
        """End the run with the status of `stop_reason`."""
        self.set_tags({"stop_reason": stop_reason, "mlflow.note.content": note})
        self.client.set_terminated(self.run_id, stop_reason.mlflow_status, now_ms())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def legal_names(values: Mapping[str, V]) -> dict[str, V]:
    """The same values under names that MLflow accepts, whatever a class is called."""
    legal: dict[str, V] = {}
    for name, value in values.items():
        parts = re.sub(r"[^\w.\- :/]", "_", name).split("/")
        clean = "/".join(part if part.strip(".") else "_" for part in parts)[:_LONGEST_NAME]
        unique, count = clean, 1
        while unique in legal:
            count += 1
            unique = f"{clean[: _LONGEST_NAME - 8]}_{count}"
        legal[unique] = value
    return legal


def _in_batches(rows: Sequence[V], size: int) -> Iterator[Sequence[V]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@dataclass
class TrialRun:
    """A trial's run, and what has been written to it."""

    run: RunWriter
    note: str  # its description, extended when the trial ends
    progress: TrialProgress  # up to the last written epoch
    running: bool = True
    seen_ms: dict[int, int] = field(default_factory=dict)  # when an epoch was first logged
