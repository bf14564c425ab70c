"""ImageNet weights: torch hub's cache, and servers that refuse, stay silent or send rubbish."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import socket
import threading
import time
from functools import partial

import pytest
import torch
from torchvision.models import Weights, WeightsEnum

from tests.support.encoder_weights import assert_is, encoder_of, loaded, resnet18_state
from unetexp.errors import CheckpointError, WeightsUnavailableError
from unetexp.models.factory import create_segmentation_model
from unetexp.models.weights import imagenet as pretrained
from unetexp.models.weights.resolution import resolve_weights


@pytest.fixture(scope="module")
def resnet18():
    return resnet18_state()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache, and no proxy, whatever this machine has."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def silent_port():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_imagenet_is_torchvisions_best():
    names = {n: str(pretrained.imagenet_weights(n)) for n in ("resnet18", "resnet50", "resnet152")}
    assert names["resnet50"] == "ResNet50_Weights.IMAGENET1K_V2"
    assert names["resnet152"] == "ResNet152_Weights.IMAGENET1K_V2"
    assert names["resnet18"] == "ResNet18_Weights.IMAGENET1K_V1"


def test_what_is_in_the_cache_needs_no_network(hub, no_network, resnet18):
    hub.mkdir(parents=True)
    torch.save(resnet18, hub / "resnet18-f37072fd.pth")
    assert resolve_weights(encoder_of("imagenet")) == (encoder_of("imagenet"), None)
    settled, notice = resolve_weights(encoder_of("auto"))
    assert settled.weights == "imagenet"
    assert "imagenet is used" in notice
    assert_is(loaded(settled), resnet18)
    model = create_segmentation_model(encoder="resnet18", decoder="slim")
    assert_is(model.encoder.state_dict(), resnet18)


def test_a_damaged_cache_is_named(hub, no_network):
    hub.mkdir(parents=True)
    file = hub / "resnet18-f37072fd.pth"
    file.write_bytes(b"torn")
    with pytest.raises(WeightsUnavailableError, match=rf"{file} is damaged .*delete it"):
        resolve_weights(encoder_of("imagenet"))


def test_a_cache_that_holds_something_else_is_named(hub, no_network):
    hub.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(1)}, hub / "resnet18-f37072fd.pth")
    for use in (resolve_weights, loaded):
        with pytest.raises(CheckpointError, match=r"torch hub's cache.*missing"):
            use(encoder_of("imagenet"))


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("port", ["silent_port", "closed_port"])
def test_a_server_that_does_not_answer(hub, monkeypatch, request, port, download):
    number = request.getfixturevalue(port)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{number}")
    monkeypatch.setattr(pretrained, "PATIENCE_S", 1.0)
    start = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match=r"encoder\.weights=none"):
        resolve_weights(encoder_of("imagenet"), download=download)
    settled, notice = resolve_weights(encoder_of("auto", freeze="all"), download=download)
    assert time.monotonic() - start < 4
    assert settled == encoder_of("none", freeze="all")
    assert "RANDOM weights" in notice
    assert "learns nothing" in notice
    assert not list(hub.glob("*"))


def test_a_look_up_of_the_name_that_hangs(hub, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(5))
    monkeypatch.setattr(pretrained, "PATIENCE_S", 0.5)
    start = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match=r"no answer within 0\.5 s"):
        create_segmentation_model()
    assert time.monotonic() - start < 3


class Server(http.server.BaseHTTPRequestHandler):
    """Sends `body`, announced as `length` bytes, and keeps the connection if that is more."""

    def __init__(self, body, length, released, *args):
        self.body, self.length, self.released = body, length, released
        super().__init__(*args)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(self.length))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have given up
            self.wfile.write(self.body)
            self.wfile.flush()
        if self.length > len(self.body):
            self.released.wait(20)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Makes a local server replace torchvision's: serve(body, length, hash)."""
    released = threading.Event()
    servers = []

    def start(body, length, digest):
        handler = partial(Server, body, length, released)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}/resnet18-{digest[:8]}.pth"

        class Local(WeightsEnum):
            IMAGENET1K_V1 = Weights(url=url, transforms=None, meta={})

        monkeypatch.setattr(pretrained, "imagenet_weights", lambda name: Local.IMAGENET1K_V1)

    yield start
    released.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def weights_file(resnet18):
    buffer = io.BytesIO()
    torch.save(resnet18, buffer)
    return buffer.getvalue()


def test_downloads_once(hub, serve, weights_file, resnet18, request):
    serve(weights_file, len(weights_file), hashlib.sha256(weights_file).hexdigest())
    assert resolve_weights(encoder_of("imagenet"), download=False).encoder.weights == "imagenet"
    assert not hub.exists()
    assert resolve_weights(encoder_of("imagenet")).encoder.weights == "imagenet"
    request.getfixturevalue("no_network")
    assert_is(loaded(encoder_of("imagenet")), resnet18)


def test_a_download_that_stops_half_way_leaves_nothing(hub, serve, weights_file, monkeypatch):
    monkeypatch.setattr(pretrained, "PATIENCE_S", 1.0)
    serve(weights_file[:1_000_000], len(weights_file), hashlib.sha256(weights_file).hexdigest())
    with pytest.raises(WeightsUnavailableError, match="timed out"):
        resolve_weights(encoder_of("imagenet"))
    assert not list(hub.iterdir())
    assert socket.getdefaulttimeout() is None


def test_a_download_of_something_else_leaves_nothing(hub, serve):
    serve(b"<html>log in</html>", 19, "0" * 64)
    with pytest.raises(WeightsUnavailableError, match="hash"):
        resolve_weights(encoder_of("imagenet"))
    assert not list(hub.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path, hub, serve, weights_file):
    (tmp_path / "torch").write_text("a file where the folder should be")
    serve(weights_file, len(weights_file), hashlib.sha256(weights_file).hexdigest())
    with pytest.raises(WeightsUnavailableError, match="TORCH_HOME"):
        resolve_weights(encoder_of("imagenet"))
