"""One self-contained HTML file with the findings, and their offenders drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from unetexp.data.checks.checked import Checked
from unetexp.data.checks.finding import Finding, Offender
from unetexp.data.checks.page.drawing import drawn

_HERE = Path(__file__).parent
_MOST_DRAWN = 24  # of a finding
_MOST_FILES = 200  # named for a finding


def write_page(checked: Checked, place: Path) -> None:
    """Write the page. Raises OSError."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        {
            "finding": finding,
            "pictures": _pictures(checked, finding.offenders[:_MOST_DRAWN]),
            "more": max(0, len(finding.offenders) - _MOST_DRAWN),
            "files": _files(finding),
        }
        for finding in checked.findings
    ]
    page = templates.get_template("page.html").render(
        summary=checked.summary(),
        root=f"{checked.root}/",  # files are named below it
        sections=sections,
        has=len(checked.findings) > 0,
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(page, encoding="utf-8")


def _pictures(checked: Checked, offenders: Sequence[Offender]) -> list[dict[str, Any]]:
    return [
        {"caption": offender.caption, "source": drawn(checked.items[offender.sample], offender)}
        for offender in offenders
    ]


def _files(finding: Finding) -> list[str]:
    if finding.groups:
        return ["  =  ".join(group) for group in finding.groups[:_MOST_FILES]]
    return list(finding.files[:_MOST_FILES])
