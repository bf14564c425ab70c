"""Addresses inside the MLflow UI."""

from __future__ import annotations

from urllib.parse import quote

from sweeps.server import public_uri
from sweeps.store import BEST, Store

DEFAULT_UI = "http://127.0.0.1:5000"


def trials_url(store: Store, sweep_run: str, ui: str | None = None, *, charts: bool = False) -> str:
    """The address of a sweep's trials in the training view: a table, best first, or charts.

    `sweep_run` is the sweep's parent run. `ui` is where the UI is served; without it that is
    the tracking server itself or, for a local database, what `make ui` serves.
    """
    if ui is None:
        ui = store.uri if store.uri.startswith("http") else DEFAULT_UI
    query = {
        "workflowType": "machine_learning",
        "searchFilter": f"tags.mlflow.parentRunId = '{sweep_run}'",
        "orderByKey": f"metrics.`{BEST}`",
        "orderByAsc": "false",
    }
    if charts:
        query["compareRunsMode"] = "CHART"
    encoded = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    return f"{public_uri(ui).rstrip('/')}/#/experiments/{store.experiment_id}/runs?{encoded}"
