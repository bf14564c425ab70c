"""Who else can reach a sweep: Ray's token and the ports that are open to the network.

A caller of Ray's ports who has the token can run code as this user, so the token's file must be
its owner's alone. Ray writes it with mode 644.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import psutil
from ray._raylet import Config  # type: ignore[attr-defined]  # compiled, without types

from unetexp.errors import UserError

_MODE = "RAY_AUTH_MODE"
_LOOPBACK = ("127.", "::1", "::ffff:127.")


def token_file() -> Path:
    """Where Ray looks for the token."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def use_tokens() -> list[str]:
    """Have Ray ask for and show the token, unless RAY_AUTH_MODE says otherwise.

    Returns what the user should hear.
    """
    if os.environ.setdefault(_MODE, "token").lower() != "token":
        return [
            f"{_MODE}={os.environ[_MODE]}: anyone who reaches this machine's ports can run code "
            f"on it. Unset {_MODE} to let in only holders of a token."
        ]
    Config.initialize("")  # Ray read its settings when it was imported
    return []


def make_token() -> None:
    """Make the token's file, private from the start, where there is no token yet."""
    path = token_file()
    if "RAY_AUTH_TOKEN" in os.environ or path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another sweep was faster
        return
    except OSError as error:
        raise UserError(
            f"{path}: the token of the workers cannot be written ({error.strerror}). Make the "
            "folder writable, or name another file with RAY_AUTH_TOKEN_PATH."
        ) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def make_private(path: Path) -> list[str]:
    """Take all rights but the owner's from the file; a sentence if it had others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & 0o077:
            return []
        path.chmod(0o600)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path} can be read by others and its mode cannot be changed: {error.strerror}."]
    return [
        f"{path} could be read by other users (mode {mode:o}); it is private now (mode 600). "
        "Whoever has read it can still run code on your workers: remove the file to get a new one."
    ]


def open_ports(root: psutil.Process | None = None) -> list[int]:
    """Ports of this process and its children that the network can reach, sorted."""
    root = root or psutil.Process()
    found: set[int] = set()
    for process in [root, *root.children(recursive=True)]:
        try:
            sockets = process.net_connections("tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        found |= {
            each.laddr.port
            for each in sockets
            if each.status == psutil.CONN_LISTEN and not each.laddr.ip.startswith(_LOOPBACK)
        }
    return sorted(found)


def port_notice(ports: list[int]) -> list[str]:
    """What to say about ports that are open to the network."""
    if not ports:
        return []
    return [
        f"{len(ports)} ports of Ray ({ports[0]} to {ports[-1]}) are open to the network. "
        f"Holders of the token in {token_file()} are let in, nobody else; a firewall closes them."
    ]
