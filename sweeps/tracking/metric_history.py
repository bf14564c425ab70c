"""Metric points of many runs at once.

A database and a tracking server can return many runs at once; MLflow's own client asks for each
run separately.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING

from sweeps.tracking.store import TrackingStore
from unetexp.training.config import SCORE

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_RUNS_PER_QUERY = 500  # databases limit the number of values in a query
_RUNS_PER_REQUEST, _MAX_POINTS = 100, 25_000  # a server's limits
_BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_THREADS = 4


def histories(
    store: TrackingStore, run_ids: Sequence[str], score: str = SCORE
) -> dict[str, list[tuple[int, float]]]:
    """The `(epoch, score)` points of each run, by epoch; none for a run without a score."""
    found: dict[str, dict[int, float]] = {run_id: {} for run_id in run_ids}
    if store.uri.startswith("http"):
        points = _from_server(store, list(found), [score])
    else:
        points = _from_database(store.uri, list(found), _is_metric(score))
    for run_id, _, epoch, value in points:
        found[run_id][epoch] = value
    return {run_id: sorted(curve.items()) for run_id, curve in found.items()}


def values_at(
    store: TrackingStore, epochs: Mapping[str, int], metrics: Iterable[str]
) -> dict[str, dict[str, float]]:
    """By run id and name: each run's validation `metrics` in the epoch given for it."""
    found: dict[str, dict[str, float]] = {run_id: {} for run_id in epochs}
    wanted = set(metrics)
    if store.uri.startswith("http"):
        points = _from_server(store, list(found), wanted)
    else:
        points = _in_the_epoch(store.uri, epochs)
    for run_id, name, epoch, value in points:
        if epoch == epochs[run_id] and name in wanted:
            found[run_id][name] = value
    return found


_Point = tuple[str, str, int, float]  # run, metric, epoch, value


def _in_the_epoch(uri: str, epochs: Mapping[str, int]) -> Iterator[_Point]:
    from mlflow.store.tracking.dbmodels.models import SqlMetric

    runs_of: dict[int, list[str]] = defaultdict(list)
    for run_id, epoch in epochs.items():
        runs_of[epoch].append(run_id)
    for epoch, runs in runs_of.items():
        yield from _from_database(uri, runs, SqlMetric.key.like("val/%"), SqlMetric.step == epoch)


def _is_metric(name: str) -> ColumnElement[bool]:
    from mlflow.store.tracking.dbmodels.models import SqlMetric

    return SqlMetric.key == name


def _from_database(
    uri: str, run_ids: Sequence[str], *conditions: ColumnElement[bool]
) -> Iterator[_Point]:
    """The runs' points that meet the conditions, in the order of their timestamps."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import NullPool, create_engine, select

    columns = (SqlMetric.run_uuid, SqlMetric.key, SqlMetric.step, SqlMetric.value)
    with create_engine(uri, poolclass=NullPool).connect() as database:
        for start in range(0, len(run_ids), _RUNS_PER_QUERY):
            some: ColumnElement[bool] = SqlMetric.run_uuid.in_(
                run_ids[start : start + _RUNS_PER_QUERY]
            )
            query = select(*columns).where(some, ~SqlMetric.is_nan, *conditions)
            for row in database.execute(query.order_by(SqlMetric.timestamp)):
                yield row._tuple()


def _from_server(
    store: TrackingStore, run_ids: Sequence[str], metrics: Iterable[str]
) -> Iterator[_Point]:
    """All points of the runs' metrics: many runs per request, several requests at a time."""
    starts = range(0, len(run_ids), _RUNS_PER_REQUEST)
    wanted = [(run_ids[at : at + _RUNS_PER_REQUEST], name) for name in metrics for at in starts]
    with ThreadPoolExecutor(_THREADS) as threads:
        for points in threads.map(lambda some: _of_many_runs(store, *some), wanted):
            yield from points


def _of_many_runs(store: TrackingStore, run_ids: Sequence[str], metric: str) -> list[_Point]:
    """The request of the UI's charts; run by run where the server does not support it."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    asked = {"run_id": list(run_ids), "metric_key": metric, "max_results": _MAX_POINTS}
    creds = get_default_host_creds(store.uri)  # type: ignore[no-untyped-call]
    answer = http_request(  # type: ignore[no-untyped-call]
        creds, _BULK, "GET", params=asked, raise_on_status=False
    )
    points = answer.json()["metrics"] if answer.status_code == HTTPStatus.OK else []
    if answer.status_code == HTTPStatus.OK and len(points) < _MAX_POINTS:
        return [(point["run_id"], metric, point["step"], point["value"]) for point in points]
    return [
        (run_id, metric, point.step, point.value)
        for run_id in run_ids
        for point in store.client.get_metric_history(run_id, metric)
    ]
