"""dataset.json beside volumes: names of classes and channels, in the forms of the Medical
Segmentation Decathlon and of nnU-Net."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetexp.errors import DataError

FILE = "dataset.json"


@dataclass(frozen=True)
class Description:
    """What a dataset.json says that matters here."""

    class_names: tuple[str, ...] | None = None  # None: not said, or not for all values from 0 up
    ignored: int | None = None  # the label that is void
    channels: tuple[str, ...] = ()  # such as CT or FLAIR, in order

    def is_ct(self, channel: int) -> bool:
        """Whether a channel is said to be CT."""
        return channel < len(self.channels) and self.channels[channel].upper() == "CT"


def read_description(root: Path) -> Description:
    """The dataset.json in `root`; an empty description where there is none. Raises DataError."""
    path = root / FILE
    if not path.is_file():
        return Description()
    try:
        content = json.loads(path.read_text("utf-8-sig"))
        values = _values(content.get("labels", {}))
        channels = content.get("channel_names", content.get("modality", {}))
        return Description(
            _names(values),
            values.pop("ignore", None),
            tuple(str(channels[key]) for key in sorted(channels, key=int)),
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: this file is damaged or of another form: {error}. It holds labels such as "
            '{"0": "background", "1": "liver"}; remove it to have the classes numbered.'
        ) from None


def _values(labels: Mapping[str, Any]) -> dict[str, int]:
    """The value of each name: the Decathlon has them by value, nnU-Net by name.

    nnU-Net's regions, which are lists of values, have no value of their own and are left out.
    """
    if all(str(key).isdigit() for key in labels):
        return {str(name): int(value) for value, name in labels.items()}
    return {name: int(value) for name, value in labels.items() if not isinstance(value, list)}


def _names(values: Mapping[str, int]) -> tuple[str, ...] | None:
    """Names in the order of their values, where those are 0 to K - 1."""
    named = sorted((value, name) for name, value in values.items() if name != "ignore")
    if len(named) < 2 or [value for value, _ in named] != list(range(len(named))):
        return None
    cleaned = [re.sub(r"[^\w .:-]", "_", name).strip() or "class" for _, name in named]
    cleaned = [name if name[0].isalnum() else f"c{name}" for name in cleaned]
    return tuple(cleaned) if len(set(cleaned)) == len(cleaned) else None
