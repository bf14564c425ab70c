"""Commands as they have to be typed in the user's shell."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """`python` or `unetexp`: the bare name where the shell finds this environment's, else its path.

    After `make sweep` the shell's own Python is another one than that of the sweep.
    """
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if (found and Path(found).absolute() == ours) or not ours.exists():
        return name
    here = Path.cwd()
    return str(ours.relative_to(here) if ours.is_relative_to(here) else ours)
