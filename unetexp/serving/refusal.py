"""Requests that are refused: a status of HTTP, and a sentence with what to do instead.

The body is that of MLflow's scoring server: `{"error_code": ..., "message": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi.responses import JSONResponse

from unetexp.errors import UserError
from unetexp.inference.payloads import TooManyPixelsError

_CODES = {  # of MLflow's errors; others have the name of their status
    HTTPStatus.BAD_REQUEST: "BAD_REQUEST",
    HTTPStatus.NOT_FOUND: "ENDPOINT_NOT_FOUND",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "REQUEST_TOO_LARGE",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL_ERROR",
    HTTPStatus.SERVICE_UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
}


class Refusal(Exception):  # noqa: N818 - it is an answer
    """The answer to a request that is not served."""

    def __init__(
        self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers

    def response(self) -> JSONResponse:
        return answer(self.status, self.message, self.headers)


def answer(
    status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The response with that status and sentence."""
    code = _CODES.get(status, status.name)
    message = message.encode(errors="replace").decode()  # a body may hold half a character
    return JSONResponse({"error_code": code, "message": message}, int(status), headers)


def refusal_of(error: UserError) -> Refusal:
    """The answer to a mistake in what was sent."""
    too_many = isinstance(error, TooManyPixelsError)
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_many else HTTPStatus.BAD_REQUEST
    return Refusal(status, str(error))
