"""The report of a sweep: one HTML page that says what was found and shows what it rests on."""

from __future__ import annotations

from pathlib import Path

from sweeps.report.effects import effects
from sweeps.report.evidence import gather
from sweeps.report.figures import figures
from sweeps.report.findings import caveats, findings
from sweeps.report.gallery import gallery
from sweeps.report.importance import importances
from sweeps.report.page import page
from sweeps.store import Store


def write_report(store: Store, sweep: str, path: Path) -> Path:
    """Write the report of a sweep to `path`, whole or not at all, and return it.

    All of it comes from the tracking store. Raises UserError if no sweep has that name, and
    OSError where `path` cannot be written.
    """
    evidence = gather(store, sweep)
    compared = evidence.comparable
    found = effects(compared, evidence.settings)
    important = importances(compared, evidence.settings)
    charts = figures(evidence, important) if len(evidence.trials) else []
    html = page(
        evidence,
        findings(evidence, found),
        caveats(evidence, found),
        charts,
        gallery(store, evidence),
    )
    path = Path(path)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(html, encoding="utf-8")
    return scratch.replace(path)
