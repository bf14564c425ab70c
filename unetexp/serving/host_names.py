"""By which names a server may be called.

A page of any site can let its own name lead to 127.0.0.1 (DNS rebinding) and would then read the
answers as its own. Addresses and localhost cannot be made to lead here by others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from unetexp.errors import ConfigError
from unetexp.serving.refusal import answer

ANY = "*"
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def require_names(names: Sequence[str]) -> None:
    """Raise ConfigError for one that is no name of a host."""
    for name in names:
        if name != ANY and not _NAME.fullmatch(name):
            raise ConfigError(
                f"--host-name {name!r}: give a name alone, such as models.example.org, without "
                "http:// and port, or '*' for any."
            )


class KnownHostNames:
    """ASGI middleware: calls by other names are answered with 403."""

    def __init__(self, app: ASGIApp, names: Sequence[str] = ()) -> None:
        self._app, self._names = app, {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or self._known(_host(scope)):
            await self._app(scope, receive, send)
            return
        refused = answer(
            HTTPStatus.FORBIDDEN,
            f"the server does not know itself by the name {_host(scope)!r}. Call it by its "
            "address, or start it with --host-name NAME.",
        )
        await refused(scope, receive, send)

    def _known(self, name: str) -> bool:
        if name == "localhost" or name in self._names or ANY in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _host(scope: Scope) -> str:
    """The name in the Host header, without port."""
    headers = dict(scope["headers"])
    host: str = headers.get(b"host", b"").decode("latin-1").strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
