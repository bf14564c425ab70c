"""Addresses inside the MLflow UI."""

from __future__ import annotations

from sweeps.store import Store
from unetexp.server import public_uri
from unetexp.tracking_uri import PROJECT_DATABASE, absolute

DEFAULT_UI = "http://127.0.0.1:5000"


def trials_url(store: Store, sweep_run: str, ui: str | None = None, *, charts: bool = False) -> str:
    """The address of a sweep's trials in the training view: a table, best first, or charts.

    `sweep_run` is the sweep's parent run, which is also the key of its saved view
    (`views.save_view`). The UI takes a view only from an address with no filter or order of its
    own. `ui` is where it is served; without it that is the tracking server itself or, for a local
    database, what `make ui` serves.
    """
    if ui is None:
        ui = store.uri if store.uri.startswith("http") else DEFAULT_UI
    query = f"workflowType=machine_learning&viewStateShareKey={sweep_run}"
    if charts:
        query += "&compareRunsMode=CHART"
    return f"{public_uri(ui).rstrip('/')}/#/experiments/{store.experiment_id}/runs?{query}"


def ui_command(tracking_uri: str | None) -> str:
    """What shows the store in the MLflow UI: a command, or the address of a server."""
    uri = absolute(tracking_uri)
    if uri == PROJECT_DATABASE:
        return "make ui"
    shown = public_uri(uri)
    return shown if shown.startswith("http") else f"make ui TRACKING_URI={shown}"
