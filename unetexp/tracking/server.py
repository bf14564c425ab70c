"""Whether a tracking server answers, with a time limit and without secrets in messages.

Credentials in an address (`user:password@host`) reach MLflow and nothing else: messages show
`public_uri`.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from unetexp.errors import UserError

T = TypeVar("T")

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
KNOCK_S, ANSWER_S = 4.0, 7.0


def scheme_of(uri: str) -> str:
    """`postgresql` for `postgresql+psycopg2://...`; empty where there is none."""
    return uri.partition("://")[0].partition("+")[0].lower() if "://" in uri else ""


def public_uri(uri: str) -> str:
    """`uri` without user, password and query, safe to show."""
    if scheme_of(uri) == "sqlite":
        return uri
    bare = re.sub(r"^([^:/]+://)?.*@", r"\1", uri, flags=re.DOTALL)
    return re.split(r"[?#]", bare, maxsplit=1)[0]


def without_secrets(text: str, uri: str) -> str:
    """`text`, such as an error message, with the credentials of `uri` removed."""
    text = text.replace(uri, public_uri(uri))
    user_info = uri.partition("://")[2].rpartition("@")[0]
    for secret in (user_info, user_info.partition(":")[2]):
        for form in filter(None, (secret, unquote(secret))):
            text = text.replace(form, "***")
    return text


def knock(uri: str) -> None:
    """Open a connection to the server's port, because MLflow itself would try for minutes.

    Raises UserError for a malformed address or if no server listens there.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or PORTS[scheme_of(uri)]
    except ValueError as error:
        reason = without_secrets(str(error), uri)
        raise UserError(f"tracking URI: {public_uri(uri)!r} is not an address: {reason}.") from None
    if not host:
        raise UserError(
            f"tracking URI: {public_uri(uri)!r} names no host. Write it as "
            f"{scheme_of(uri)}://HOST:PORT."
        )
    if scheme_of(uri) in getproxies() and not proxy_bypass(host):
        return
    answered(uri, lambda: socket.create_connection((host, port), KNOCK_S).close(), KNOCK_S)


def reaches(host: str, port: int, limit_s: float = 3.0) -> bool:
    """Whether a server accepts connections there."""
    try:
        socket.create_connection((host, port), limit_s).close()
    except OSError:
        return False
    return True


def answered(uri: str, work: Callable[[], T], limit_s: float | None = None) -> T:
    """The result of `work`; UserError if it fails or takes longer than `limit_s` seconds."""
    limit_s = ANSWER_S if limit_s is None else limit_s
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name="tracking-probe").start()
    try:
        return outcome.result(limit_s)
    except UserError:
        raise
    except TimeoutError:
        reason = f"no answer within {limit_s:.0f} s"
    except Exception as error:
        reason = without_secrets(str(error).partition("\n")[0] or type(error).__name__, uri)
    raise UserError(
        f"the tracking server {public_uri(uri)} cannot be used: {reason}. Check the address, "
        "that the server runs and, where it asks for them, MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD; or leave --tracking-uri out to track in a local file."
    )
