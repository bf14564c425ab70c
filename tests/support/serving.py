"""A served model in a thread of its own, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from PIL import Image

from unetexp.serving.app import create_app
from unetexp.serving.engine import Prediction
from unetexp.serving.server import address_of, bound_socket
from unetexp.serving.settings import ServingSettings


@dataclass(frozen=True)
class PlainSpec:
    """What a model takes and says."""

    class_names: tuple[str, ...] = ("dark", "bright")
    in_channels: int = 3
    image_max: int = 255
    input: None = None


class BrightPixels:
    """A model whose answer is known: class 1 where the first channel is bright."""

    name, runtime = "bright", "NumPy"

    def __init__(self, spec=PlainSpec()) -> None:
        self.spec = spec
        self.batches = []  # the number of images of each call
        self.delay_s = 0.0
        self.fails_on = None  # a value of the first pixel

    def group(self, image):
        return image.shape

    def predict(self, images, probabilities):
        time.sleep(self.delay_s)
        self.batches.append(len(images))
        if any(image[0, 0, 0] == self.fails_on for image in images):
            raise RuntimeError("out of order")
        return [self._one(image, asked) for image, asked in zip(images, probabilities, strict=True)]

    def _one(self, image, asked):
        labels = (image[0] >= 2 ** (8 * image.itemsize - 1)).astype(np.uint8)
        shares = np.stack([1 - labels, labels]).astype(np.float32)
        return Prediction(labels, shares if asked else None)


@contextlib.contextmanager
def served(engine, **settings):
    """The address of a server of `engine`."""
    listening = bound_socket("127.0.0.1", 0)
    app = create_app(engine, ServingSettings(**settings))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def message(self):
        return self.json["message"]

    @property
    def picture(self):
        return np.asarray(Image.open(io.BytesIO(self.body)))

    @property
    def array(self):
        return np.load(io.BytesIO(self.body), allow_pickle=False)


def request(address, path, body=None, method=None, **headers):
    """The answer to a request; `content_type` is the header Content-Type."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        found = connection.getresponse()
        got = {name.lower(): value for name, value in found.getheaders()}
        return Reply(found.status, got, found.read())
    finally:
        connection.close()


def encoded(image, kind="PNG", **options):
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def npy(array):
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
