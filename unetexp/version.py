"""The version, in a module that everything can import."""

from __future__ import annotations

__version__ = "0.1.0"
