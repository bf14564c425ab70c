"""The report of a sweep: one HTML page with the findings and the plots behind them."""

from __future__ import annotations

from pathlib import Path

from sweeps.report.advice.dimensions import advice
from sweeps.report.effects import effects
from sweeps.report.figure_table import figure_table
from sweeps.report.findings import caveats, findings
from sweeps.report.gallery import gallery
from sweeps.report.importance import importances
from sweeps.report.page import page, plots
from sweeps.report.sweep_data import load_sweep_data
from sweeps.tracking.store import TrackingStore


def write_report(store: TrackingStore, sweep: str, path: Path) -> Path:
    """Write the report of a sweep to `path`, atomically, and return the path.

    Reads only the tracking store. Raises UserError if no sweep has that name, and
    OSError where `path` cannot be written.
    """
    sweep_data = load_sweep_data(store, sweep)
    compared = sweep_data.comparable
    found = effects(compared, sweep_data.settings)
    important = importances(compared, sweep_data.settings)
    charts = plots(sweep_data, important) if len(sweep_data.trials) else []
    html = page(
        sweep_data,
        findings(sweep_data, found, advice(sweep_data, found, sweep_data.space)),
        caveats(sweep_data, found),
        charts,
        gallery(store, sweep_data),
        figure_table(store, sweep_data),
    )
    path = Path(path)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(html, encoding="utf-8")
    return scratch.replace(path)
