"""A library's C++ messages are kept off the terminal; everything else is shown."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import ray

from sweeps.execution.cluster import leave
from unetexp.system.core_messages import core_messages_logged

NOISE = (
    "[2026-11-28 02:47:40,066 E 26209 26365] task_manager.cc:1545: Failed to push error to driver "
    "for task c8ef45ccd0112571ffffffffffffffffffffffff01000000\n"
)
FATAL = "[2026-11-28 02:47:40,066 C 26209 26365] core_worker.cc:12: Check failed: worker\n"


def test_what_ray_says_while_it_ends_is_logged(monkeypatch, capfd, caplog):
    monkeypatch.setattr(ray, "shutdown", lambda: os.write(2, NOISE.encode()))
    with caplog.at_level(logging.INFO):
        leave()
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
    assert NOISE.strip() in caplog.text


@pytest.mark.parametrize("line", [FATAL, "Traceback (most recent call last):\n", "no end of line"])
def test_anything_else_is_shown(capfd, line):
    with pytest.raises(RuntimeError), core_messages_logged():
        os.write(2, (NOISE + line).encode())
        raise RuntimeError
    assert capfd.readouterr().err == line


def test_a_closed_standard_error_is_no_mistake():
    code = (
        "import os; os.close(2)\n"
        "from unetexp.system.core_messages import core_messages_logged\n"
        "with core_messages_logged(): print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n")
