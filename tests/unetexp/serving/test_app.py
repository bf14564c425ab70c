"""The server over real HTTP: what is accepted, what is answered, and what is refused."""

from __future__ import annotations

import base64
import json
import pickle
import socket
import struct
import threading
import time
import zlib
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from tests.support.serving import BrightPixels, PlainSpec, encoded, npy, request, served
from unetexp.data.painting import paint

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (37, 50, 3), dtype=np.uint8)
LABELS = (IMAGE[..., 0] >= 128).astype(np.uint8)
PNG, NPY, JSON = "image/png", "application/x-npy", "application/json"
LARGEST = 64 * 64


@pytest.fixture(scope="module")
def address():
    with served(BrightPixels(), max_mb=0.1, max_pixels=LARGEST) as found:
        yield found


def bomb(width=20_000, height=20_000):
    """A small PNG that says it has that many pixels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


class TestAnswers:
    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (encoded(IMAGE), PNG),
            (encoded(IMAGE), "application/octet-stream"),
            (encoded(IMAGE), "application/x-www-form-urlencoded"),  # as curl sends it
            (npy(IMAGE), NPY),
            (npy(IMAGE), "application/octet-stream"),
            (npy(np.asfortranarray(IMAGE)), NPY),
            (npy((IMAGE.astype(int) * 257).astype(">u2")), NPY),
            (json.dumps({"inputs": base64.b64encode(encoded(IMAGE)).decode()}).encode(), JSON),
            (json.dumps({"inputs": IMAGE.tolist()}).encode(), f"{JSON}; charset=utf-8"),
        ],
    )
    def test_a_label_map_as_png(self, address, body, kind):
        reply = request(address, "/predict", body, content_type=kind)
        assert (reply.status, reply.headers["content-type"]) == (200, PNG)
        assert (reply.picture == LABELS).all()

    def test_jpeg(self, address):
        flat = np.zeros((16, 24, 3), np.uint8)
        flat[:, 8:] = 255
        reply = request(address, "/predict", encoded(flat, "JPEG"), content_type="image/jpeg")
        assert (reply.picture == (flat[..., 0] > 0)).all()

    def test_the_overlay(self, address):
        reply = request(address, "/predict?as=overlay", encoded(IMAGE))
        assert (reply.picture == paint(IMAGE, LABELS)).all()

    def test_probabilities(self, address):
        reply = request(address, "/predict?as=probabilities", encoded(IMAGE))
        assert reply.headers["content-type"] == NPY
        assert (reply.array.shape, reply.array.dtype) == ((2, *LABELS.shape), np.float32)
        assert (reply.array[1] == LABELS).all()

    def test_accept_chooses_the_form(self, address):
        for accept in (NPY, "application/octet-stream", f"text/html, {NPY};q=0.5"):
            reply = request(address, "/predict", encoded(IMAGE), accept=accept)
            assert (reply.array == LABELS).all()
        reply = request(address, "/predict", encoded(IMAGE), accept=f"{PNG};q=0.1, {JSON}")
        assert reply.json["labels"] == LABELS.tolist()
        assert reply.json["classes"] == ["dark", "bright"]
        assert sum(reply.json["shares"]) == pytest.approx(1)
        refused = request(address, "/predict?as=overlay", encoded(IMAGE), accept=NPY)
        assert refused.status == 406
        assert "overlay are answered as image/png" in refused.message

    def test_a_batch_of_arrays(self, address):
        batch = np.stack([IMAGE[:20], IMAGE[17:]])
        reply = request(address, "/predict", npy(batch))
        assert (reply.array == (batch[..., 0] >= 128)).all()
        assert "x-class-shares" not in reply.headers
        assert request(address, "/predict?as=overlay", npy(batch)).status == 400

    def test_what_it_took_and_what_was_found(self, address):
        reply = request(address, "/predict", encoded(IMAGE))
        assert json.loads(reply.headers["x-class-shares"])[1] == pytest.approx(
            LABELS.mean(), abs=1e-5
        )
        assert [p.split(";")[0] for p in reply.headers["server-timing"].split(", ")] == [
            *("decode", "wait", "predict", "encode")
        ]

    def test_a_grey_image_is_taken_with_a_note(self, address):
        reply = request(address, "/predict", encoded(IMAGE[..., 0]))
        assert (reply.picture == LABELS).all()
        assert "is grey and the model takes RGB" in reply.headers["x-note"]

    def test_as_mlflow_does(self, address):
        one = base64.b64encode(encoded(IMAGE)).decode()
        for inputs, wanted in (
            (one, LABELS.tolist()),
            ({"image": one}, LABELS.tolist()),
            ([one, IMAGE[:9].tolist()], [LABELS.tolist(), LABELS[:9].tolist()]),
        ):
            body = json.dumps({"inputs": inputs}).encode()
            reply = request(address, "/invocations", body, content_type=JSON)
            assert (reply.status, reply.json) == (200, {"predictions": wanted})

    def test_health_and_what_is_served(self, address):
        for path in ("/health", "/ping"):
            reply = request(address, path)
            assert (reply.status, reply.json["status"]) == (200, "ok")
        about = request(address, "/model").json
        assert [one["name"] for one in about["classes"]] == ["dark", "bright"]
        assert about["classes"][0]["colour"] is None
        assert about["max_pixels"] == LARGEST


def npy_header(shape):
    """A .npy file of bytes that says it has this shape, and holds nothing."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


class TestRefusals:
    """Each with a status of the client's mistakes and one message."""

    @pytest.mark.parametrize(
        ("body", "kind", "status", "said"),
        [
            (b"x" * 100_001, PNG, 413, "larger than 0.1 MB"),
            (b"hello", PNG, 400, "neither PNG nor JPEG"),
            (b"GIF89a" + b"\0" * 100, "", 400, "neither PNG nor JPEG"),
            (encoded(IMAGE)[:400], PNG, 400, "truncated or damaged"),
            (encoded(IMAGE)[:20], PNG, 400, "truncated or damaged"),
            (encoded(IMAGE, "JPEG")[:300], "image/jpeg", 400, "truncated or damaged"),
            (b"", PNG, 400, "no body"),
            (bomb(), PNG, 413, "more pixels than"),
            (encoded(np.zeros((65, 64), np.uint8)), PNG, 413, "65 x 64 pixels"),
            (npy(np.zeros((65, 64), np.uint8)), NPY, 413, "65 x 64 pixels"),
            (npy(np.zeros((2, 40, 60, 3), np.uint8)), NPY, 413, "image 1 has 40 x 60 pixels"),
            (npy(IMAGE[..., :2]), NPY, 400, "has 2 channels"),
            (npy(np.zeros((8, 8, 4), np.uint8)), NPY, 400, "Drop the alpha channel"),
            (npy(IMAGE / 255)[:40_000], NPY, 400, "truncated or damaged"),
            (npy(IMAGE[:9, :9] / 255), NPY, 400, "an array of float64 was sent"),
            (npy(IMAGE[0, 0, 0]), NPY, 400, "the shape ()"),
            (npy(IMAGE)[:9], NPY, 400, "not a .npy file"),
            (npy(IMAGE)[:-5], NPY, 400, "truncated or damaged"),
            (npy_header("(-2, -8, 3)"), NPY, 400, "its shape is (-2, -8, 3)"),
            (npy_header("(True,)"), NPY, 400, "its shape is (True,)"),
            (npy_header(f"(0, {10**18}, {10**18})"), NPY, 400, "it has no values"),
            (b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, NPY, 400, "not a .npy file"),
            (b'{"\\ud800": 1}', JSON, 400, 'the key "inputs"'),
            (pickle.dumps([1]), "application/octet-stream", 400, "neither PNG nor JPEG"),
            (npy(np.array([{}], object)), NPY, 400, "never loaded"),
            (b"a=1", "multipart/form-data; boundary=x", 415, "--data-binary @FILE"),
            (b"hello", "text/plain", 415, "the content type text/plain is not accepted"),
            (b"{", JSON, 400, "is not JSON"),
            (b"[" * 50_000, JSON, 400, "is not JSON"),
            (b"[1]", JSON, 400, "holds a list"),
            (b'{"instances": 1}', JSON, 400, "holds instances"),
            (b'{"inputs": "no image"}', JSON, 400, "not base64"),
            (b'{"inputs": [[0, 1e400]]}', JSON, 400, "fractional numbers"),
            (b'{"inputs": [[0, 99999999999999999999999]]}', JSON, 400, "sent"),
        ],
    )
    @pytest.mark.parametrize("path", ["/predict", "/predict?as=overlay"])
    def test_what_is_no_image_to_the_model(self, address, path, body, kind, status, said):
        reply = request(address, path, body, content_type=kind)
        assert (reply.status, said in reply.message) == (status, True), reply.body
        assert reply.message.count("\n") == 0

    def test_a_hundred_megabytes_are_not_kept(self, address):
        def parts():
            for _ in range(100):
                yield b"\0" * 1_000_000

        reply = request(address, "/predict", parts(), content_length="100000000")
        assert (reply.status, "larger than" in reply.message) == (413, True)
        unstated = request(address, "/predict", parts())
        assert unstated.status == 413

    def test_other_wishes(self, address):
        reply = request(address, "/predict?as=overlays", encoded(IMAGE))
        assert (reply.status, "Did you mean 'overlay'?" in reply.message) == (400, True)
        assert request(address, "/elsewhere").status == 404
        assert request(address, "/predict").status == 405
        assert request(address, "/invocations", encoded(IMAGE), content_type=PNG).status == 415

    def test_channels_that_mean_something_else(self):
        with served(BrightPixels(PlainSpec(in_channels=5))) as address:
            reply = request(address, "/predict", encoded(IMAGE))
            assert (reply.status, "takes 5" in reply.message) == (400, True)

    def test_it_goes_on_after_all_that(self, address):
        assert request(address, "/predict", encoded(IMAGE)).status == 200

    def test_a_body_that_never_arrives(self):
        with served(BrightPixels(), body_timeout_s=0.3) as address:
            place = urlsplit(address)
            with socket.create_connection((place.hostname, place.port), 10) as slow:
                slow.sendall(
                    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab"
                )
                assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


class TestHostNames:
    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1:80", "[::1]:5001", "192.168.1.7"])
    def test_addresses_are_known(self, address, name):
        assert request(address, "/health", host=name).status == 200

    @pytest.mark.parametrize("name", ["example.org", "localhost.example.org:5001", ""])
    def test_names_are_not_unless_they_are_given(self, address, name):
        reply = request(address, "/predict", encoded(IMAGE), host=name)
        assert (reply.status, "--host-name" in reply.message) == (403, True)
        with served(BrightPixels(), host_names=("Example.org", "*")) as open_to_all:
            assert request(open_to_all, "/health", host=name).status == 200

    def test_answers_are_of_this_site_only(self, address):
        for path, body in (("/", None), ("/predict", encoded(IMAGE))):
            headers = request(address, path, body, origin="http://example.org").headers
            assert "access-control-allow-origin" not in headers
            assert headers["x-content-type-options"] == "nosniff"


class TestLoad:
    def test_more_requests_than_the_queue_holds_are_told_when_to_come_again(self):
        engine = BrightPixels()
        engine.delay_s = 0.5
        with served(engine, queue=2, batch_size=1) as address:
            replies = together(address, [encoded(IMAGE)] * 6)
            busy = [reply for reply in replies if reply.status == 503]
            assert len(replies) - len(busy) == 2
            assert all(int(reply.headers["retry-after"]) >= 1 for reply in busy)
            assert "try again in" in busy[0].message
            assert request(address, "/predict", encoded(IMAGE)).status == 200

    def test_requests_that_come_together_are_predicted_together(self):
        engine = BrightPixels()
        small, images = encoded(IMAGE[:9]), [np.roll(IMAGE, n, axis=0) for n in range(5)]
        with served(engine, batch_size=8, batch_wait_ms=500) as address:
            replies = together(address, [*map(encoded, images), small])
        assert sorted(engine.batches) == [1, 5]
        for image, reply in zip(images, replies, strict=False):
            assert (reply.picture == (image[..., 0] >= 128)).all()
            assert reply.headers["x-batch"] == "5"

    def test_a_batch_is_no_larger_than_allowed(self):
        engine = BrightPixels()
        with served(engine, batch_size=2, batch_wait_ms=500) as address:
            assert all(r.status == 200 for r in together(address, [encoded(IMAGE)] * 5))
        assert max(engine.batches) == 2

    def test_an_image_that_fails_spoils_no_other(self):
        engine = BrightPixels()
        engine.fails_on = 77
        broken = IMAGE.copy()
        broken[0, 0, 0] = 77
        good = IMAGE.copy()
        good[0, 0, 0] = 5
        with served(engine, batch_wait_ms=500) as address:
            replies = together(address, [encoded(good), encoded(broken), encoded(good)])
            assert [reply.status for reply in replies] == [200, 500, 200]
            assert request(address, "/predict", encoded(broken)).status == 500
            assert request(address, "/health").status == 503
            assert request(address, "/predict", encoded(good)).status == 200
            assert request(address, "/health").status == 200


@pytest.mark.slow
def test_memory_stays_flat():
    image = encoded(RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8))
    process = psutil.Process()
    with served(BrightPixels()) as address:

        def grown_mb(requests):
            before = process.memory_info().rss
            for _ in range(requests):
                assert request(address, "/predict?as=probabilities", image).status == 200
            return (process.memory_info().rss - before) / 1e6

        grown_mb(200)
        assert grown_mb(400) < 10  # one answer is 0.5 MB


def together(address, bodies):
    """The answers to requests that are sent at the same time, in their order."""
    replies = [None] * len(bodies)

    def send(place, body):
        replies[place] = request(address, "/predict", body)

    threads = [threading.Thread(target=send, args=each) for each in enumerate(bodies)]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    return replies
