"""The version, on a floor that everything can import from."""

from __future__ import annotations

__version__ = "0.1.0"
