"""The record of one trial in a tracking store: enough to train it again and compare metrics."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unetexp.errors import UserError
from unetexp.metrics.figures.families import is_of_every_epoch
from unetexp.tracking.locate import asked, connect, find_run, score_of
from unetexp.training.config import SCORE, TrainConfig, decode_recorded, read_tree
from unetexp.training.experiment import MACHINE

CONFIG_FILE = "config.yaml"
FINGERPRINT = "data.fingerprint"
_COMPARED = ("train/", "val/")
_MICRO_BATCH = "system/micro_batch"

History = dict[str, dict[int, float]]  # metric -> epoch -> value


@dataclass(frozen=True)
class RecordedRun:
    """A trial that has ended."""

    run_id: str
    name: str
    stop_reason: str
    config: TrainConfig
    fingerprint: str  # of the data
    history: History  # train/... and val/...
    micro_batches: tuple[int, ...]  # images per micro-batch; each size once
    machine: Mapping[str, str]  # see `experiment.machine`; empty if not recorded
    score: str = SCORE  # the metric of its best epoch

    @property
    def epochs(self) -> int:
        """The number of epochs that the trial finished."""
        return max(max(points) for points in self.history.values())


def run_record(run_id: str, tracking_uri: str | None = None) -> RecordedRun:
    """The record of the trial `run_id`, which may be written runs:/ID.

    Raises UserError for a store that cannot be used and for a run that is not a trial, has not
    ended or has no configuration: such a run cannot be trained again.
    """
    client = connect(tracking_uri)
    run = find_run(client, run_id.removeprefix("runs:").strip("/"))
    run_id, tags = run.info.run_id, run.data.tags
    named = f"run {run_id} ({run.info.run_name})"
    if "mlflow.parentRunId" not in tags:
        raise UserError(f"{named} is a sweep and not a trial: give the id of one of its trials.")
    if "stop_reason" not in tags:
        raise UserError(f"{named} has not ended: reproduce it when it has.")
    if CONFIG_FILE not in {entry.path for entry in asked(client, client.list_artifacts, run_id)}:
        raise UserError(
            f"{named} has no {CONFIG_FILE}: it ended as {tags['stop_reason']} before an epoch was "
            "scored. There is nothing to compare with."
        )
    with tempfile.TemporaryDirectory() as scratch:
        path = asked(client, client.download_artifacts, run_id, CONFIG_FILE, scratch)
        config = decode_recorded(read_tree(Path(path)), f"{named}, {CONFIG_FILE}")
    points = {
        name: {
            point.step: point.value
            for point in asked(client, client.get_metric_history, run_id, name)
        }
        for name in run.data.metrics
        if name == _MICRO_BATCH
        or (name.startswith(_COMPARED) and is_of_every_epoch(name.partition("/")[2]))
    }
    micro_batches = {int(value) for value in points.pop(_MICRO_BATCH, {}).values()}
    parent = find_run(client, tags["mlflow.parentRunId"])
    if not points or FINGERPRINT not in parent.data.tags:
        raise UserError(f"{named} has no metrics, or its sweep no {FINGERPRINT}: see its page.")
    return RecordedRun(
        run_id=run_id,
        name=run.info.run_name,
        stop_reason=tags["stop_reason"],
        config=config,
        fingerprint=parent.data.tags[FINGERPRINT],
        history=points,
        micro_batches=tuple(sorted(micro_batches)) or (config.micro_batch_size,),
        score=score_of(run),
        machine={k.removeprefix(MACHINE): v for k, v in tags.items() if k.startswith(MACHINE)},
    )
