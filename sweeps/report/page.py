"""The report as one self-contained HTML page: text, images, plots and plotly itself."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sweeps.config.metric_names import BEST_EPOCH, COST, LATENCY, PARAMETERS
from sweeps.leaderboard.trials import PARETO, per_class_columns
from sweeps.report.figure_table import FigureTable
from sweeps.report.findings import Finding
from sweeps.report.gallery import Gallery, data_uri
from sweeps.report.importance import Importance
from sweeps.report.plot_style import ABSENT, Chart
from sweeps.report.plots_heatmap import heat_map
from sweeps.report.plots_progress import device_time, endings, history, learning_curves
from sweeps.report.plots_settings import importance, parallel, slices
from sweeps.report.plots_tradeoffs import per_class, prices
from sweeps.report.searched_settings import text
from sweeps.report.sweep_data import EQUAL, SweepData
from sweeps.state.stop_reason import label_of

_PRINTED_ROWS, _CLASSES_IN_TABLE = 60, 8
_HERE = Path(__file__).parent


def page(
    sweep_data: SweepData,
    findings: Sequence[Finding],
    caveats: Sequence[str],
    charts: Sequence[Chart],
    pictures: Gallery,
    figures: FigureTable | None,
) -> str:
    """The page's HTML. Names from outside are escaped by the template and by `embedded`."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["data_uri"] = data_uri
    specs = {chart.key: {"data": chart.data, "layout": chart.layout} for chart in charts}
    return templates.get_template("page.html").render(
        name=sweep_data.name,
        state=label_of(sweep_data.tags.get("stop_reason", "still running")),
        findings=findings,
        caveats=caveats,
        charts=charts,
        gallery=pictures,
        figures=figures,
        table=_table(sweep_data),
        printed_rows=_PRINTED_ROWS,
        facts=_facts(sweep_data),
        budget=sweep_data.budget,
        score=sweep_data.score,
        nonce=secrets.token_urlsafe(16),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs() if charts else ""),
        specs=Markup(embedded(specs)),
    )


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever names it contains."""
    safe = json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        safe = safe.replace(letter, f"\\u{ord(letter):04x}")
    return safe


def _plain(value: Any) -> Any:
    """The same value with Python's own numbers, and None for those that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _table(sweep_data: SweepData) -> dict[str, Any]:
    """Headings and rows of all trials; cells are strings."""
    trials = sweep_data.trials
    classes = per_class_columns(trials)
    classes = classes if len(classes) <= _CLASSES_IN_TABLE else []
    score = sweep_data.score
    columns = {
        "trial": trials["label"],
        "ended": [label_of(reason) for reason in trials["stop_reason"]],
        "epochs": [f"{used} of {sweep_data.budget}" for used in trials["epochs"]],
        f"best {score}": _format(trials[sweep_data.goals.best], "{:.4f}"),
        "in epoch": _format(trials[BEST_EPOCH], "{:.0f}"),
        **({"Pareto front": _marks(trials[PARETO])} if PARETO in trials else {}),
        f"{score} at epoch {sweep_data.equal_epoch}": _format(trials[EQUAL], "{:.4f}"),
        **{s.path: _setting(trials, s.path, s.active(trials)) for s in sweep_data.settings},
        **{f"IoU {c.removeprefix('val/iou/')}": _format(trials[c], "{:.3f}") for c in classes},
        "M parameters": _format(trials[PARAMETERS] * 1e-6, "{:.1f}"),
        "latency ms": _format(trials[LATENCY], "{:.1f}"),
        "cost device s": _format(trials[COST], "{:.0f}"),
    }
    rows = list(zip(*columns.values(), strict=True))
    full = trials["full_budget"].tolist()
    return {"headings": list(columns), "rows": list(zip(full, rows, strict=True))}


def _marks(values: Iterable[bool]) -> list[str]:
    return ["yes" if value else "" for value in values]


def _setting(trials: pd.DataFrame, path: str, active: Iterable[bool]) -> list[str]:
    return [text(v) if here else ABSENT for v, here in zip(trials[path], active, strict=True)]


def _format(values: pd.Series, pattern: str) -> list[str]:
    return [ABSENT if pd.isna(value) else pattern.format(value) for value in values]


def _facts(sweep_data: SweepData) -> list[tuple[str, str]]:
    """Recipe, data, hardware and versions of the sweep, from its parent run."""
    tags, params, data = sweep_data.tags, sweep_data.params, sweep_data.data
    facts = [(name, str(params[name])) for name in ("recipe", "seed", "epochs") if name in params]
    facts += [(p.removeprefix("space."), v) for p, v in params.items() if p.startswith("space.")]
    for split, held in (data.get("splits") or {}).items():
        facts.append((f"{split} images", str(held.get("images", "?"))))
    if data.get("classes"):
        facts.append(("classes", ", ".join(map(str, data["classes"]))))
    shown = ("data.", "sweep.", "git.", "version.", "encoder.", "hardware.", "notices")
    hidden = ("sweep.pid", "sweep.name")
    facts += [(k, v) for k, v in sorted(tags.items()) if k.startswith(shown) and k not in hidden]
    return facts


def plots(sweep_data: SweepData, importances: Sequence[Importance]) -> list[Chart]:
    """The plots of a sweep with at least one trial."""
    return [
        importance(sweep_data, importances),
        slices(sweep_data),
        heat_map(sweep_data),
        parallel(sweep_data),
        history(sweep_data),
        learning_curves(sweep_data),
        per_class(sweep_data),
        prices(sweep_data),
        device_time(sweep_data),
        endings(sweep_data),
    ]
