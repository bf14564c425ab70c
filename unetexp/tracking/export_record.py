"""The MLflow run of a model that is exported: where it comes from, and what the export measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unetexp.tracking.locate import asked, connect, find_run, run_id_at

COMMIT = "git.commit"
FOLDER = "exports"  # artifact folder of the cards


@dataclass(frozen=True)
class Origin:
    """The run that trained a model."""

    run_id: str | None = None
    commit: str | None = None


def origin_of(address: str, tracking_uri: str | None = None) -> Origin:
    """The run of the model at `address`, unless that is a path. Raises as `locate`."""
    run_id = run_id_at(address, tracking_uri)
    if run_id is None:
        return Origin()
    client = connect(tracking_uri)
    run = find_run(client, run_id)
    parent = run.data.tags.get("mlflow.parentRunId")
    tags = {**(find_run(client, parent).data.tags if parent else {}), **run.data.tags}
    return Origin(run.info.run_id, tags.get(COMMIT))


def record_export(
    run_id: str,
    name: str,
    metrics: Mapping[str, float],
    card: str,
    tracking_uri: str | None = None,
) -> None:
    """Keep the figures of an export, `export/NAME/...`, and its card in the model's run.

    Raises CheckpointError where the store does not take them.
    """
    client = connect(tracking_uri)
    for metric, value in metrics.items():
        asked(client, client.log_metric, run_id, f"export/{name}/{metric}", value)
    asked(client, client.log_text, run_id, card, f"{FOLDER}/{name}.md")
