"""Which samples belong together: a patient's, a video's, a site's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from unetexp.data.files.file_sample import FileSample
from unetexp.errors import ConfigError, DataError

_SHOWN = 3


def group_pattern_text(given: str | None) -> str | None:
    """The pattern, checked to be a regular expression; ConfigError."""
    if given is None:
        return None
    try:
        re.compile(given)
    except (re.error, TypeError) as error:
        raise ConfigError(
            f"data.group_pattern: {given!r} is not a regular expression: {error}. Its first "
            r"group in parentheses is the sample's group, such as '^(patient\d+)_'."
        ) from None
    return given


def grouped_by_name(samples: Sequence[FileSample], pattern: str) -> list[FileSample]:
    """The samples with the group that `pattern` finds in each name.

    That is the pattern's first group in parentheses, or the whole match. Raises DataError for a
    name in which it finds none.
    """
    search = re.compile(pattern).search
    found = {sample.name: _group(search(sample.name)) for sample in samples}
    if missing := [name for name, group in found.items() if not group]:
        raise DataError(_unmatched(pattern, found, missing))
    return [replace(sample, group=found[sample.name]) for sample in samples]


def _group(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    return (match.group(1) if match.re.groups else match.group(0)) or ""


def _unmatched(pattern: str, found: Mapping[str, str], missing: Sequence[str]) -> str:
    matched = [f"{name} -> {group}" for name, group in found.items() if group]
    shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    seen = f" It matches {', '.join(matched[:_SHOWN])}." if matched else ""
    return (
        f"data.group_pattern {pattern!r} finds no group in the names of {len(missing)} of the "
        f"{len(found)} images: {shown}.{seen} Every image needs a group: change the pattern (its "
        "first group in parentheses counts, or the whole match), such as "
        r"--set 'data.group_pattern=^([^_]+)', or leave it out: --set data.group_pattern=null"
    )
