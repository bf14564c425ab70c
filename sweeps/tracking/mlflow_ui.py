"""What the MLflow UI shows of a sweep: its trials, best first, with their columns and charts.

MLflow hides metrics and parameters unless a view asks for them. A saved view is a tag of the
experiment, `mlflow.sharedViewState.<key>`; the UI lists it under its name, and a URL selects it by
key. The format is that of the UI of MLflow 3.17, which writes such tags itself.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from sweeps.config.goals import USUAL, Goals
from sweeps.text import make
from sweeps.tracking.store import TrackingStore
from unetexp.tracking.server import public_uri
from unetexp.tracking.uri import PROJECT_DATABASE, absolute

DIMENSIONS = ("encoder.freeze", "decoder.upsampling", "loss.kind", "optimizer.lr")
OVERLAY_SERIES = "val/overlay"  # the same epochs of all trials
BEST_OVERLAY, BEST_STEP = "best/overlay", 0  # the UI compares images of one step only
_TAG = "mlflow.sharedViewState."
_RUN_NAME, _CREATED = "attributes.`Run Name`", "runDateAndNestInfo"
_MOST_DIMENSIONS = 20  # a tag holds 5000 characters, and a screen has no room for more
_CHART_PX, _PICTURES_PX = 360, 440  # heights; MLflow's thumbnails take 256
_PREFIXES = (
    "val",
    "val/iou",
    "val/dice",
    "best/val",
    "best",
    "train",
    "time",
)  # MLflow would sort them


def of_sweep(sweep_run: str) -> str:
    """The condition that picks the trials of the parent run `sweep_run`."""
    return f"tags.mlflow.parentRunId = '{sweep_run}'"


def save_view(
    store: TrackingStore,
    sweep_run: str,
    name: str,
    dimensions: Iterable[str],
    goals: Goals = USUAL,
) -> None:
    """Save the view of a sweep's trials under the key `sweep_run`, its parent run.

    `dimensions` are the parameters in the table and in the parallel-coordinates chart, which
    omits a trial that lacks one of them; `goals` are the sweep's objectives.
    """
    shown = list(dimensions)[:_MOST_DIMENSIONS]
    state = zlib.compress(
        json.dumps(_table(sweep_run, shown, goals) | _charts(shown, goals)).encode()
    )
    now = time.time_ns() // 1_000_000
    view = {
        "name": name,
        "createdAt": now,
        "updatedAt": now,
        "state": "deflate;" + base64.b64encode(state).decode(),
    }
    store.client.set_experiment_tag(store.experiment_id, _TAG + sweep_run, json.dumps(view))


def remove_view(store: TrackingStore, sweep_run: str) -> None:
    """Remove the view that `save_view` saved, if it exists."""
    key = _TAG + sweep_run
    if key in store.client.get_experiment(store.experiment_id).tags:
        store.client.delete_experiment_tag(store.experiment_id, key)


def _table(sweep_run: str, dimensions: Sequence[str], goals: Goals) -> dict[str, Any]:
    best_first = f"metrics.`{goals.best}`"
    widths = {
        _RUN_NAME: 150,
        best_first: 105,
        **{f"metrics.`{each.tracked}`": 105 for each in goals.others},
        **{f"params.`{path}`": max(90, 15 + 7 * len(path)) for path in dimensions},
        "metrics.`best/epoch`": 85,
        "tags.`stop_reason`": 105,
        "metrics.`val/dice`": 90,
        "attributes.`Duration`": 85,
        _CREATED: 145,
    }
    return {
        "searchFilter": of_sweep(sweep_run),
        "orderByKey": best_first,
        "orderByAsc": False,
        "selectedColumns": [column for column in widths if column not in (_RUN_NAME, _CREATED)],
        "columnOrder": list(widths),
        "columnWidths": widths,
    }


def _charts(dimensions: Sequence[str], goals: Goals) -> dict[str, Any]:
    """Our charts come first; the UI adds one for every other metric to its prefix's section."""
    settings = {
        "type": "PARALLEL",
        "selectedParams": list(dimensions),
        "selectedMetrics": list(reversed(goals.columns)),
        "showAllRuns": True,
    }
    own = {
        "Learning curves": [_line(name) for name in (goals.score, "train/loss", "val/loss")],
        f"Settings and {goals.best}": [settings],
        "Pictures": [_pictures(BEST_OVERLAY, BEST_STEP), _pictures(OVERLAY_SERIES, step=1)],
    }
    wide = own.keys() - {"Learning curves"}
    common = {"runsCountToCompare": 10, "deleted": False, "isGenerated": False}
    charts = [
        {**chart, **common, "uuid": f"{section}-{number}", "metricSectionId": section}
        for section, some in own.items()
        for number, chart in enumerate(some)
    ]
    sections = [
        {
            "uuid": name,
            "name": name,
            "display": True,
            "isReordered": False,
            "deleted": False,
            "isGenerated": name not in own,
            "columns": 1 if name in wide else 3,
            "cardHeight": _PICTURES_PX if name == "Pictures" else _CHART_PX,
        }
        for name in (*own, *_PREFIXES)
    ]
    return {
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,  # or the UI sorts the sections by name
    }


def _pictures(series: str, step: int) -> dict[str, Any]:
    return {"type": "IMAGE", "imageKeys": [series], "step": step, "showRunParams": False}


def _line(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": metric,
        "displayName": metric,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


DEFAULT_UI = "http://127.0.0.1:5000"


def trials_url(
    store: TrackingStore, sweep_run: str, ui: str | None = None, *, charts: bool = False
) -> str:
    """The URL of a sweep's trials in the training view: a table, best first, or charts.

    `sweep_run` is the sweep's parent run, which is also the key of its saved view (`save_view`).
    The UI applies a view only if the URL has no filter or order of its own. `ui` is the UI's base
    URL; by default the tracking server itself or, for a local database, that of `make ui`.
    """
    if ui is None:
        ui = store.uri if store.uri.startswith("http") else DEFAULT_UI
    query = f"workflowType=machine_learning&viewStateShareKey={sweep_run}"
    if charts:
        query += "&compareRunsMode=CHART"
    return f"{public_uri(ui).rstrip('/')}/#/experiments/{store.experiment_id}/runs?{query}"


def ui_command(tracking_uri: str | None) -> str:
    """How to open the store in the MLflow UI: a command, or the URL of a server."""
    uri = absolute(tracking_uri)
    if uri == PROJECT_DATABASE:
        return make("ui")
    shown = public_uri(uri)
    return shown if shown.startswith("http") else make("ui", TRACKING_URI=shown)
