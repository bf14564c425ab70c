"""What lies in a folder."""

from __future__ import annotations

from pathlib import Path


def entries_of(folder: Path) -> list[Path]:
    """Files and folders by name; none where the folder cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
