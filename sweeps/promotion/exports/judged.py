"""Exports of a model that is promoted: written, proved, and judged by the gates of its weights."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sweeps.config.gates import Gates
from sweeps.promotion.exports.asked import ExportRequest, file_request
from sweeps.promotion.gates import Measures, Verdict, check_gates
from unetexp.data import Dataset
from unetexp.export.exporting import Exported, export
from unetexp.export.proof import Proof
from unetexp.inference.evaluation import assess, train_config
from unetexp.metrics.latency import latency_ms
from unetexp.models.saved_model import read_spec
from unetexp.runtimes.network import RuntimeNetwork
from unetexp.runtimes.runtime import open_runtime
from unetexp.tracking.export_record import Origin

TEST, VAL = "test", "val"
_LATENCY = "latency"


@dataclass(frozen=True)
class JudgedExport:
    """An export with its figures and verdicts."""

    name: str  # openvino-int8
    exported: Exported
    split: str
    metrics: Mapping[str, float]  # on that split
    latency_ms: float  # of one image in its runtime
    served: bool  # whether the registered model is used with it
    verdicts: tuple[Verdict, ...]

    @property
    def proof(self) -> Proof:
        return self.exported.proof


@dataclass(frozen=True)
class Judge:
    """By what exports are judged: the gates of a promotion, its data and the champion."""

    asked: ExportRequest
    gates: Gates
    split: str
    champion: Mapping[str, float] | None  # its metrics on the split
    why_none: str = ""
    served_ms: float | None = None  # what the trial was chosen by, where that was timed

    def judged(
        self, folder: Path, data: Dataset, origin: Origin, scratch: Path, **figures: Any
    ) -> tuple[JudgedExport, ...]:
        """The asked exports of the model in `folder`, as files in `scratch`.

        `data` is at its working size; `figures` as in `assess`. Raises UserError for what cannot
        be exported.
        """
        return tuple(
            self._judged(name, folder, data, origin, scratch, figures) for name in self.asked.names
        )

    def _judged(
        self,
        name: str,
        folder: Path,
        data: Dataset,
        origin: Origin,
        scratch: Path,
        figures: Mapping[str, Any],
    ) -> JudgedExport:
        done = written(name, folder, data, scratch, origin)
        network = RuntimeNetwork(open_runtime(done.path))
        spec = read_spec(folder)
        config = train_config(folder).model_copy(update={"precision": "fp32"})
        assessment = assess(
            network, spec, data, self.split, torch.device("cpu"), train=config, **figures
        )
        metrics = assessment.all_metrics
        served = name == self.asked.flavor
        took_ms = self.served_ms if served else None
        if took_ms is None:
            took_ms = _latency_ms(network, spec.in_channels, data)
        measures = Measures(metrics, took_ms, done.size_mb)
        verdicts = [
            replace(verdict, gate=f"{name}: {verdict.gate}")
            for verdict in check_gates(self.gates, measures, self.champion, self.why_none)
            if verdict.green is not None and (served or verdict.gate != _LATENCY)
        ]
        verdicts.insert(0, self._drop(name, done.proof))
        return JudgedExport(name, done, self.split, metrics, took_ms, served, tuple(verdicts))

    def _drop(self, name: str, proof: Proof) -> Verdict:
        """The gate of what the export lost beside its own weights."""
        allowed, lost = self.asked.max_drop, proof.lost_points
        found = f"{lost:.2f} points of mIoU on {proof.split}"
        worst, points = proof.lost_by_class()[0]
        if points > 0:
            found += f", most: {worst} {points:.2f}"
        by = f"{lost - allowed:.2f} points"
        return Verdict(
            f"{name}: lost by exporting", lost <= allowed, f"at most {allowed:g} points", found, by
        )


def judged_weights(verdicts: list[Verdict], asked: ExportRequest) -> list[Verdict]:
    """The weights' own verdicts: their latency is no gate where an export is served instead."""
    if asked.serves_weights:
        return verdicts
    why = f"not what is served: {asked.flavor} is"
    return [
        replace(each, green=None, limit=why) if each.gate == _LATENCY else each for each in verdicts
    ]


def written(name: str, folder: Path, data: Dataset, scratch: Path, origin: Origin) -> Exported:
    """The export of the model in `folder` as a proved file in `scratch`."""
    request = file_request(name, scratch).of(origin.run_id, origin.commit)
    return export(folder, request, data, TEST if data.folds else VAL)


def served_ms(name: str, folder: Path, data: Dataset) -> float:
    """Milliseconds for one image of the model in `folder` as the export `name`, here."""
    with tempfile.TemporaryDirectory(prefix="unetexp-exports-") as scratch:
        done = written(name, folder, data, Path(scratch), Origin())
        network = RuntimeNetwork(open_runtime(done.path))
        return _latency_ms(network, read_spec(folder).in_channels, data)


def _latency_ms(network: RuntimeNetwork, channels: int, data: Dataset) -> float:
    height, width = statistics.mode(data[VAL].shapes)  # as the weights' own
    return latency_ms(network, channels, height, width)
