"""The web application around a model.

`/predict` takes one image and answers with a picture or an array; `/invocations` takes and gives
what MLflow's scoring server does; `/` is a page to try the model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from unetexp.data.painting import colour_of, hex_colour
from unetexp.errors import UserError
from unetexp.inference.conforming import conform
from unetexp.inference.payloads import Payload
from unetexp.serving.answers import content, shares, wanted
from unetexp.serving.batching import Batcher, Predicted
from unetexp.serving.bodies import JSON, NPY, decoded, discard, receive
from unetexp.serving.engine import Engine
from unetexp.serving.host_names import KnownHostNames
from unetexp.serving.page import PAGE, PAGE_POLICY
from unetexp.serving.refusal import Refusal, answer, refusal_of
from unetexp.serving.settings import ServingSettings
from unetexp.version import __version__

log = logging.getLogger(__name__)

T = TypeVar("T")
_CODERS = 2  # threads that decode and encode images
_BODIES = ("image/png", "image/jpeg", NPY, JSON)
_OPENAPI: dict[str, Any] = {
    "requestBody": {"required": True, "content": {kind: {} for kind in _BODIES}}
}
_SAFE = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


def create_app(engine: Engine, settings: ServingSettings) -> FastAPI:
    """The application; it predicts while its lifespan runs, as under uvicorn."""
    service = _Service(engine, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.stop()

    # FastAPI's pages about the interface would load scripts from another address.
    app = FastAPI(
        title="unetexp", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.add_middleware(KnownHostNames, names=settings.host_names)
    app.add_exception_handler(HTTPException, _as_sentence)
    app.get("/", response_class=HTMLResponse)(_page)
    app.get("/model")(service.model)
    for path in ("/health", "/ping"):
        app.get(path)(service.health)
    app.post("/predict", openapi_extra=_OPENAPI)(service.predict)
    app.post("/invocations", openapi_extra=_OPENAPI)(service.invocations)
    return app


async def _page() -> HTMLResponse:
    """A page to try the model."""
    return HTMLResponse(PAGE, headers={**_SAFE, "Content-Security-Policy": PAGE_POLICY})


async def _as_sentence(request: Request, error: Exception) -> Response:
    """Starlette's own refusals in our form."""
    assert isinstance(error, HTTPException)
    sentences = {
        404: f"there is nothing at {request.url.path}. Send images to POST /predict or "
        "/invocations; GET / is a page to try the model, GET /health says whether it runs.",
        405: f"{request.url.path} does not take {request.method}.",
    }
    message = sentences.get(error.status_code, str(error.detail))
    return answer(HTTPStatus(error.status_code), message, error.headers)


class _Service:
    """The model's answers."""

    def __init__(self, engine: Engine, settings: ServingSettings) -> None:
        self._engine, self._settings = engine, settings
        self.batcher = Batcher(engine, settings.batch_size, settings.batch_wait_ms / 1000)
        self._coders = ThreadPoolExecutor(_CODERS, "images")
        self._open = 0  # requests that were admitted and not answered yet
        # Decoded images take much more memory than files.
        self._decoded = asyncio.Semaphore(2 * settings.batch_size)

    async def stop(self) -> None:
        await self.batcher.stop()
        self._coders.shutdown()

    async def health(self) -> JSONResponse:
        """Whether the model predicts: 200, or 503 after its last prediction failed."""
        failing = self.batcher.failing
        status = HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK
        return JSONResponse(
            {
                "status": "failing" if failing else "ok",
                "model": self._engine.name,
                "runtime": self._engine.runtime,
                "waiting": self.batcher.waiting,
            },
            int(status),
        )

    async def model(self) -> dict[str, Any]:
        """What is served, and what is accepted."""
        spec = self._engine.spec
        return {
            "model": self._engine.name,
            "runtime": self._engine.runtime,
            "unetexp": __version__,
            "channels": spec.in_channels,
            "classes": [
                {"name": name, "colour": hex_colour(colour_of(label)) if label else None}
                for label, name in enumerate(spec.class_names)
            ],
            "max_mb": self._settings.max_mb,
            "max_pixels": self._settings.max_pixels,
        }

    async def predict(
        self,
        request: Request,
        what: Annotated[
            str, Query(alias="as", description="labels, probabilities or overlay")
        ] = "labels",
    ) -> Response:
        """One image, or a .npy batch, to its label map, probabilities or overlay."""

        async def work(body: bytes) -> Response:
            accept = request.headers.get("accept") or "*/*"
            wanted(what, accept)  # before anything is computed
            started = time.perf_counter()
            payload = await self._decode(body, request)
            asked = wanted(what, accept, payload.form)
            decoded_s = time.perf_counter() - started
            predicted, notes = await self._predicted(payload, asked.what == "probabilities")
            started = time.perf_counter()
            spec = self._engine.spec
            predictions = [each.prediction for each in predicted]
            encoded = await self._in_thread(content, asked, payload, predictions, spec)
            headers = {
                **_SAFE,
                "Server-Timing": _timing(decoded_s, predicted, time.perf_counter() - started),
                "X-Batch": str(predicted[0].together),
            }
            if len(predictions) == 1:
                found = shares(predictions[0].labels, len(spec.class_names))
                headers["X-Class-Shares"] = json.dumps(found)
            if notes:
                headers["X-Note"] = "; ".join(f"the image {note}" for note in notes)
            return Response(encoded, media_type=asked.media, headers=headers)

        return await self._admitted(request, work)

    async def invocations(self, request: Request) -> Response:
        """Label maps as MLflow's scoring server gives them: `{"inputs": ...}` in."""

        async def work(body: bytes) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != JSON:
                raise Refusal(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    f"the content type {kind or 'is missing and'} is not accepted here: send "
                    f'{JSON}, {{"inputs": ...}}, or the image itself to /predict.',
                )
            payload = await self._decode(body, request)
            predicted, _ = await self._predicted(payload, probabilities=False)
            labels = [each.prediction.labels for each in predicted]
            encoded = await self._in_thread(_predictions, payload, labels)
            return Response(encoded, media_type=JSON, headers=_SAFE)

        return await self._admitted(request, work)

    async def _admitted(self, request: Request, work: Callable[[bytes], Any]) -> Response:
        """What `work` makes of the body, or the reason why the request is refused."""
        try:
            if self._open >= self._settings.queue:
                raise await self._busy(request)
            self._open += 1
            try:
                body = await receive(request, self._settings)
                async with self._decoded:
                    response: Response = await work(body)
            finally:
                self._open -= 1
        except Refusal as refusal:
            return refusal.response()
        except ClientDisconnect:  # nobody reads the answer
            return answer(HTTPStatus.BAD_REQUEST, "the request was not sent to its end.")
        except UserError as error:
            return refusal_of(error).response()
        except Exception:
            log.exception("a request failed")
            return answer(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "the model could not predict this image; the server's log says why.",
            )
        return response

    async def _busy(self, request: Request) -> Refusal:
        await discard(request)
        seconds = max(1, math.ceil(self._open * self.batcher.seconds_per_image))
        return Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{self._open} requests are being answered, which is the most at a time: try again "
            f"in {seconds} s, or start the server with a larger --queue.",
            {"Retry-After": str(seconds)},
        )

    async def _decode(self, body: bytes, request: Request) -> Payload:
        kind = request.headers.get("content-type", "")
        limit = self._settings.max_pixels
        return await self._in_thread(decoded, body, kind, self._engine.spec, limit)

    async def _predicted(
        self, payload: Payload, probabilities: bool
    ) -> tuple[list[Predicted], list[str]]:
        """Of each image, and what was assumed about them."""
        spec = self._engine.spec
        conformed = await self._in_thread(
            lambda: [conform(image, spec) for image in payload.images]
        )
        notes = dict.fromkeys(note for _, found in conformed for note in found)
        predicted = await asyncio.gather(
            *(self.batcher.predict(image, probabilities) for image, _ in conformed)
        )
        return predicted, list(notes)

    async def _in_thread(self, compute: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._coders, compute, *given)


def _timing(decoded_s: float, predicted: list[Predicted], encoded_s: float) -> str:
    """As the header Server-Timing, in milliseconds."""
    parts = {
        "decode": decoded_s,
        "wait": max(each.waited_s for each in predicted),
        "predict": max(each.predicted_s for each in predicted),
        "encode": encoded_s,
    }
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in parts.items())


def _predictions(payload: Payload, labels: list[Any]) -> bytes:
    found = payload.answer(labels)
    lists = [part.tolist() for part in found] if isinstance(found, list) else found.tolist()
    return json.dumps({"predictions": lists}).encode()
