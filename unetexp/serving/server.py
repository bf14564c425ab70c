"""The server's process: its socket, and its end by a signal."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from unetexp.errors import ConfigError

_GRACE_S = 10  # for the requests that are being answered when a signal arrives
_IDLE_S = 15  # before a connection without a request is closed
_CONNECTIONS = 1000


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at that address; port 0 is any free one. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: the server cannot listen there: {error.strerror}. "
            "Choose another port with --port (0: any free one), or end what uses it."
        ) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """By which the server is called from this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Answer requests until a signal ends the server, and raise that signal again."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=_CONNECTIONS,
    )
    server = _Announcing(config, on_ready)
    with listening:
        server.run([listening])


class _Announcing(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()
