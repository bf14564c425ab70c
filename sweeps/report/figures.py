"""All figures of a report, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.report.choices import importance, parallel, slices
from sweeps.report.course import device_time, endings, history, learning_curves
from sweeps.report.drawing import Chart
from sweeps.report.evidence import Evidence
from sweeps.report.heat import heat_map
from sweeps.report.importance import Importance
from sweeps.report.outcomes import per_class, prices


def figures(evidence: Evidence, importances: Sequence[Importance]) -> list[Chart]:
    """The figures of a sweep with at least one trial."""
    return [
        importance(evidence, importances),
        slices(evidence),
        heat_map(evidence),
        parallel(evidence),
        history(evidence),
        learning_curves(evidence),
        per_class(evidence),
        prices(evidence),
        device_time(evidence),
        endings(evidence),
    ]
