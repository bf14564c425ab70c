"""`unetexp data check`: faults of a data set, what they do to the figures, and their mend."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from unetexp.cli.exit_codes import MISTAKE, exit_codes
from unetexp.cli.open_data import source_of
from unetexp.cli.options import Device, SetData, TrackingUri
from unetexp.cli.progress import shown_progress
from unetexp.data import Mni152
from unetexp.data.checks.checked import Checked, check_source
from unetexp.data.checks.finding import Finding, Severity, exit_code, ranked
from unetexp.data.checks.mend import mend_into, require_new_folder
from unetexp.data.checks.page.page import write_page
from unetexp.errors import ConfigError, DataError, listed
from unetexp.training.config import parse_assignments

_STYLES = {Severity.error: "red", Severity.warning: "yellow", Severity.note: "cyan"}


def check(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images and masks, a table of them, or a kind such as mni152."
        ),
    ],
    set_: SetData = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON, and nothing else.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the offending images drawn."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a repaired copy of what is safe to repair into this new folder.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Also rank the held-out masks by how surely this model (a folder, a run's id or "
            "models:/NAME@ALIAS) contradicts them.",
        ),
    ] = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
) -> None:
    """Find what is wrong with a data set, what it does to the figures, and how to mend it.

    Exits with 0 if there is nothing but notes, with 1 for warnings, with 2 for errors.
    """
    with exit_codes():
        settings = parse_assignments(set_ or [])
        if fix is not None:
            require_new_folder(fix, Path(source))
        aside = Console(stderr=True, highlight=False, soft_wrap=True)
        try:
            known = source_of(source, Mni152(), settings)
            checked = _checked(known, aside)
        except DataError as error:
            if not json_:
                raise
            typer.echo(json.dumps(_tree(_not_opened(source, error), None), indent=2))
            sys.exit(MISTAKE)
        if model is not None:
            checked = _with_label_noise(checked, known, model, device, tracking_uri, aside)
        repaired = None if fix is None else mend_into(checked, fix)
        if html is not None:
            _write_page(checked, html)
        if json_:
            typer.echo(json.dumps(_tree(checked, repaired), indent=2))
        else:
            _print(checked, repaired, html, fix)
        code = exit_code(checked.findings)
    sys.exit(code)


def _not_opened(source: str, error: DataError) -> Checked:
    """What a program gets for a set that cannot be examined: the message as a finding."""
    finding = Finding(
        "not-opened",
        Severity.error,
        title=str(error),
        why="Nothing of the set could be examined, and no sweep can start.",
        mend="As the message says; then check again.",
    )
    return Checked(source, (), (), (finding,))


def _checked(source: Any, console: Console) -> Checked:
    with shown_progress(console) as on_progress:
        return check_source(source, on_progress)


def _with_label_noise(
    checked: Checked,
    source: Any,
    model: str,
    device: str,
    tracking_uri: str | None,
    console: Console,
) -> Checked:
    from unetexp.compute.device import limit_threads, pick_device
    from unetexp.data import open_dataset
    from unetexp.inference.label_noise import noise_finding
    from unetexp.tracking.locate import locate

    limit_threads()
    folder = locate(model, tracking_uri)
    try:
        with console.status("predicting"):
            data = open_dataset(source, to_train=False)
            found = noise_finding(folder, data, checked.samples, pick_device(device))
    except DataError as error:
        note = f"The masks were not ranked by the model {model}: {error}"
        return replace(checked, notes=(*checked.notes, note))
    return replace(checked, findings=tuple(ranked([*checked.findings, *found])))


def _write_page(checked: Checked, place: Path) -> None:
    try:
        write_page(checked, place)
    except OSError as error:
        raise ConfigError(
            f"--html {place}: the page cannot be written: {error.strerror}."
        ) from None


def _tree(checked: Checked, repaired: Sequence[str] | None) -> dict[str, Any]:
    counts = {each.value: 0 for each in Severity}
    for finding in checked.findings:
        counts[finding.severity.value] += 1
    return {
        **checked.summary(),
        "counts": counts,
        "exit_code": exit_code(checked.findings),
        "findings": [finding.tree() for finding in checked.findings],
        **({} if repaired is None else {"repaired": list(repaired)}),
    }


def _print(
    checked: Checked, repaired: Sequence[str] | None, html: Path | None, fix: Path | None
) -> None:
    console = Console(highlight=False, soft_wrap=False)
    summary = checked.summary()
    splits = ", ".join(f"{name or 'unsplit'} {count}" for name, count in summary["splits"].items())
    console.print(f"{checked.where}: {summary['pairs']} pairs ({splits})", markup=False)
    shares = [f"{name} {share:.1%}" for name, share in summary["classes"].items()]
    if shares:
        console.print(f"classes, by share of the pixels: {listed(shares, 12)}", markup=False)
    for note in checked.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    if checked.findings:
        console.print(_table(checked.findings, checked.root))
    else:
        console.print("Nothing was found to be wrong.")
    for line in repaired or ():
        console.print(f"repaired: {line}", markup=False)
    if fix is not None:
        console.print(f"the repaired copy is in {fix}; the original is as it was", markup=False)
    if html is not None:
        console.print(f"pictures in {html}", markup=False)
    elif any(finding.offenders for finding in checked.findings):
        console.print("--html FILE writes a page with the pictures")


def _table(findings: Sequence[Finding], root: Path | None) -> Table:
    columns = ("", "found", "why it hurts, and the mend")
    table = Table(*(Column(title, overflow="fold") for title in columns), show_lines=True)
    for finding in findings:
        style = _STYLES[finding.severity]
        table.add_row(
            f"[{style}]{finding.severity.value}[/{style}]\n{finding.code}",
            _escaped(finding.title.replace(f"{root}/", "")),  # files below it
            f"{_escaped(finding.why)}\n[bold]→[/bold] {_escaped(finding.mend)}",
        )
    return table


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
