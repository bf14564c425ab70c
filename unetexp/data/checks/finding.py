"""What a check has found, as values."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class Severity(enum.StrEnum):
    """How much a finding matters; in the order of weight."""

    error = "error"  # no model can be trained, or its figures would be wrong
    warning = "warning"  # the figures or the model suffer
    note = "note"  # worth knowing


_WEIGHTS = list(Severity)
_EXIT_CODES = {Severity.error: 2, Severity.warning: 1, Severity.note: 0}

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels, the last two outside


@dataclass(frozen=True)
class Offender:
    """One sample that a finding is about, to be drawn."""

    sample: int  # its index among the samples that were examined
    caption: str
    regions: tuple[Box, ...] = ()
    values: tuple[int, ...] = ()  # stored mask values to outline; none: all


@dataclass(frozen=True)
class Finding:
    """One fault or observation."""

    code: str  # kebab-case, stable
    severity: Severity
    title: str  # one sentence that says what was found, with its numbers
    why: str  # what it does to the figure
    mend: str
    files: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)  # JSON-safe
    groups: tuple[tuple[str, ...], ...] = ()  # files that belong together, such as copies
    offenders: tuple[Offender, ...] = ()

    def tree(self) -> dict[str, Any]:
        """JSON-safe values."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "title": self.title,
            "why": self.why,
            "mend": self.mend,
            "files": list(self.files),
            "numbers": dict(self.numbers),
            "groups": [list(group) for group in self.groups],
        }


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; otherwise in the given order."""
    return sorted(findings, key=lambda finding: _WEIGHTS.index(finding.severity))


def exit_code(findings: Sequence[Finding]) -> int:
    """0: nothing but notes, 1: warnings, 2: errors."""
    return max((_EXIT_CODES[finding.severity] for finding in findings), default=0)
