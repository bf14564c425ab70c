"""Access to a sweep: Ray's token and the ports that are open to the network.

Anyone with the token who reaches Ray's ports can run code as this user, so only the owner may read
the token's file. Ray writes it with mode 644.
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
    """Have Ray require and send the token, unless RAY_AUTH_MODE says otherwise.

    Returns warnings for the user.
    """
    if os.environ.setdefault(_MODE, "token").lower() != "token":
        return [
            f"{_MODE}={os.environ[_MODE]}: anyone who reaches this machine's ports can run code "
            f"on it. Unset {_MODE} to let in only holders of a token."
        ]
    Config.initialize("")  # Ray has read its settings on import: read them again
    return []


def make_token() -> None:
    """Create the token's file, private from the start, where there is no token yet."""
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
            f"{path}: the token for the workers cannot be written ({error.strerror}). Make the "
            "folder writable, or name another file with RAY_AUTH_TOKEN_PATH."
        ) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def make_private(path: Path) -> list[str]:
    """Remove all permissions but the owner's from the file; returns a warning if it had others."""
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
        f"{path} could be read by other users (mode {mode:o}); it is now private (mode 600). "
        "Anyone who has read it can still run code on your workers: delete it to get a new token."
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


def port_warning(ports: list[int]) -> list[str]:
    """A warning about ports that are open to the network, if there are any."""
    if not ports:
        return []
    return [
        f"{len(ports)} ports of Ray ({ports[0]} to {ports[-1]}) are open to the network. "
        f"Only holders of the token in {token_file()} are accepted; a firewall closes the ports."
    ]
