"""The registered model: its inputs and outputs, its requirements, and its answers over HTTP."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image
from safetensors.torch import save_file

import unetexp
from sweeps.promotion.model_package import REQUIREMENTS, pinned_requirements
from sweeps.promotion.registry import MODEL, champion, register, set_champion
from sweeps.tracking.store import open_store
from unetexp.data.reading.image_decoding import read_image
from unetexp.errors import DataError
from unetexp.inference.payloads import read_payload
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.saved_model import ModelSpec, read_spec

CARD = "# unetexp\n\n" + "A line of the card.\n" * 400
START_S = 180.0


def spec_of(channels=3, image_max=255):
    return ModelSpec(
        class_names=("background", "cell", "nucleus"),
        in_channels=channels,
        image_max=image_max,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        encoder=ResNet(name="resnet18", weights="none"),
        decoder=Decoder(),
    )


def picture(height, width, seed=0, dtype=np.uint8, channels=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


IMAGE, SMALL = picture(47, 70), picture(20, 33, seed=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model with random weights, as training writes it."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(spec_of().build().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model": spec_of().tree()}))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights):
    """A store whose champion is that model."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")
    run = store.client.create_run(store.experiment_id).info.run_id
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    version = register(store, weights, card=CARD, tags={"a": "b"}, run_id=run, example=IMAGE)
    assert before == (mlflow.get_tracking_uri(), mlflow.get_registry_uri())
    assert mlflow.active_run() is None
    set_champion(store, version)
    return store


@pytest.fixture(scope="module")
def model(store):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        yield mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")


@pytest.fixture(scope="module")
def files(store):
    """The folder of the registered model."""
    run = store.client.get_run(champion(store).run_id)
    return Path(run.info.artifact_uri.removeprefix("file://")) / "model"


@pytest.fixture(scope="module")
def expected(weights):
    """Image (H, W, C) -> label map, by the formula."""
    network = unetexp.load(weights)

    @torch.inference_mode()
    def labels(image):
        scaled = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
        return network.double()((scaled - 0.5) / 0.25)[0].argmax(0).numpy()

    return labels


def agree(labels, expected):
    return labels.shape == expected.shape and (labels == expected).mean() > 0.999


class TestPredict:
    def test_one_image(self, model, expected):
        labels = model.predict(IMAGE)
        assert labels.dtype == np.uint8
        assert agree(labels, expected(IMAGE))

    def test_a_batch(self, model, expected):
        labels = model.predict(np.stack([IMAGE, IMAGE[::-1]]))
        assert (labels.dtype, labels.shape) == (np.uint8, (2, 47, 70))
        assert agree(labels[1], expected(IMAGE[::-1].copy()))

    def test_a_list_of_different_sizes(self, model, expected):
        labels = model.predict([IMAGE, SMALL])
        assert isinstance(labels, list)
        assert agree(labels[0], expected(IMAGE)) and agree(labels[1], expected(SMALL))

    def test_other_ways_to_send_an_image(self, model):
        as_base64 = base64.b64encode(encoded(SMALL)).decode()
        labels = model.predict(SMALL)
        one_each = [
            encoded(SMALL),
            as_base64,
            f"data:image/png;base64,{as_base64}",
            {"image": as_base64},
            SMALL.tolist(),
            torch.from_numpy(SMALL),
        ]
        for given in one_each:
            assert (model.predict(given) == labels).all()
        for given in ([as_base64], [{"image": SMALL}], pd.DataFrame({"image": [as_base64]})):
            assert (model.predict(given)[0] == labels).all()
        ragged = np.empty(2, object)
        ragged[:] = [IMAGE, SMALL]
        assert [answer.shape for answer in model.predict(ragged)] == [(47, 70), (20, 33)]

    def test_a_grey_image_has_three_equal_channels(self, model):
        grey = SMALL[..., 0]
        labels = model.predict(np.repeat(grey[..., None], 3, axis=2))
        assert (model.predict(grey) == labels).all()
        assert (model.predict(grey[..., None]) == labels).all()
        assert (model.predict(encoded(grey)) == labels).all()

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            (IMAGE / 255, "an array of float64 was sent. Send uint8"),
            (IMAGE.astype(np.int64), "an array of int64"),
            (IMAGE[..., :2], r"2 channels, as \(H, W, C\) = \(47, 70, 2\)"),
            (np.dstack([IMAGE, IMAGE[..., :1]]), r"Drop the alpha channel: image\[..., :3\]"),
            (IMAGE.transpose(2, 0, 1), "Channels come last"),
            (IMAGE[None, None], r"the shape \(1, 1, 47, 70, 3\)"),
            (IMAGE[:0], r"the shape \(0, 70, 3\)"),
            ([], "no image was sent"),
            ([IMAGE, IMAGE[..., :2]], "image 1 has 2 channels"),
            ([[0.5, 1.5]], "fractional numbers"),
            ([[0, 256]], "numbers from 0 to 256 were sent"),
            ("a text!", "not base64"),
            (b"GIF89a", "neither PNG nor JPEG"),
            (encoded(IMAGE)[:300], "truncated or damaged"),
            (None, "a NoneType was sent"),
            ({"image": 1, "mask": 2}, "keys image, mask"),
            (pd.DataFrame({"a": [1], "b": [2]}), "columns a, b"),
        ],
    )
    def test_anything_else_is_refused_with_a_reason(self, model, given, sentence):
        with pytest.raises(DataError, match=sentence):
            model.predict(given)


class TestDepths:
    """Images of 16 bits, and what files hold."""

    def test_sixteen_bits_are_taken_by_a_model_of_eight(self, model):
        deep = SMALL.astype(np.uint16) * 257
        assert (model.predict(deep) == model.predict(SMALL)).all()

    def test_sixteen_bits(self, tmp_path):
        spec, deep = spec_of(image_max=4095), picture(9, 7, dtype=np.uint16)
        (image,) = read_payload(deep, spec).images
        assert image.dtype == np.uint16
        assert (image.transpose(1, 2, 0) == deep).all()
        (listed,) = read_payload(deep.tolist(), spec).images
        assert (listed == image).all()

    @pytest.mark.parametrize("mode", ["I;16", "L", "P", "1", "RGBA"])
    def test_files_are_read_as_training_reads_them(self, tmp_path, mode):
        grey = picture(9, 7, channels=1)[..., 0]
        image = (
            Image.fromarray(picture(9, 7, dtype=np.uint16, channels=1)[..., 0])
            if mode == "I;16"
            else Image.fromarray(grey).convert(mode)
        )
        image.save(tmp_path / "x.png")
        wanted = read_image(tmp_path / "x.png")
        spec = spec_of(wanted.shape[0], image_max=65535 if wanted.dtype == np.uint16 else 255)
        (given,) = read_payload((tmp_path / "x.png").read_bytes(), spec).images
        assert (given == wanted).all()


class TestFiles:
    def test_weights_and_code_and_no_pickle(self, files, weights):
        names = {path.name for path in files.rglob("*") if path.is_file()}
        assert {
            "model.safetensors",
            "config.json",
            "served_model.py",
            "card.md",
            "MLmodel",
        } <= names
        assert not {name for name in names if Path(name).suffix in (".pkl", ".pt", ".pth")}
        assert {path.name for path in (files / "code").iterdir()} == {"unetexp"}
        copy = files / "artifacts" / "model.safetensors"
        assert copy.read_bytes() == (weights / "model.safetensors").read_bytes()
        assert "python_model:" not in (files / "MLmodel").read_text()

    def test_signature_and_example_leave_the_size_open(self, model):
        signature = model.metadata.signature
        (images,), (labels,) = signature.inputs.inputs, signature.outputs.inputs
        assert (images.type, images.shape) == (np.uint8, (-1, -1, -1, 3))
        assert (labels.type, labels.shape) == (np.uint8, (-1, -1, -1))
        assert model.predict(model.input_example).shape == (1, 47, 64)

    def test_requirements_are_few_and_pinned_to_what_is_installed(self, files, weights):
        stated = (files / "requirements.txt").read_text().split()
        assert stated == pinned_requirements(read_spec(weights))
        for name, line in zip(REQUIREMENTS, stated, strict=True):
            installed = importlib.metadata.version(name).partition("+")[0]
            assert line == f"{name}=={installed}"

    def test_the_card(self, store, files):
        assert (files / "card.md").read_text() == CARD
        version = store.client.get_model_version(MODEL, champion(store).version)
        assert version.description.startswith("# unetexp")
        assert len(version.description) <= 5000
        assert version.description.endswith("model/card.md among the run's artifacts.)")
        assert version.tags["a"] == "b"

    def test_a_second_version_of_a_run_leaves_the_first_as_it_is(self, store, files, weights):
        run, before = champion(store).run_id, (files / "card.md").read_text()
        version = register(store, weights, card="short", tags={}, run_id=run, example=SMALL[..., 0])
        assert store.client.get_model_version(MODEL, version).description == "short"
        assert (files / "card.md").read_text() == before
        assert (files.with_name("model-2") / "card.md").read_text() == "short"
        assert champion(store).version == "1"


# A clean environment, and HTTP

GUARD = """
import json, os, sys

blocked = set(json.loads(os.environ["BLOCKED_MODULES"]))

class Guard:  # finds what another finder finds, unless it is blocked
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        known = name.partition(".")[0] not in blocked
        return self.finder.find_spec(name, path, target) if known else None

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [
    Guard(finder)
    for finder in sys.meta_path
    if "__editable__" not in getattr(finder, "__module__", "")
]
"""


def closure(requirements):
    """The names of all distributions that pip would install for the requirements."""
    found, left = set(), [(Requirement(line), "") for line in requirements]
    while left:
        requirement, extra = left.pop()
        name = requirement.name.lower().replace("_", "-")
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if not needed or (name, str(requirement.extras)) in found:
            continue
        found.add((name, str(requirement.extras)))
        lines = importlib.metadata.requires(name) or []
        left += [(Requirement(line), e) for line in lines for e in ("", *requirement.extras)]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def clean_environment(files, tmp_path_factory):
    """Environment variables for a Python that has only the model's stated requirements."""
    have = closure((files / "requirements.txt").read_text().split())
    others = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not any(owner.lower().replace("_", "-") in have for owner in owners)
    }
    # unetexp is in the model; pictures are not needed, though MLflow's own requirements draw some
    blocked = others - {"unetexp"} | {"matplotlib"}
    place = tmp_path_factory.mktemp("clean")
    (place / "sitecustomize.py").write_text(GUARD)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MLflow calls uvicorn
        "PYTHONPATH": str(place),
        "BLOCKED_MODULES": json.dumps(sorted(blocked)),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@pytest.mark.parametrize("module", ["optuna", "ray", "matplotlib", "tifffile", "unetexp"])
def test_the_clean_environment_is_clean(clean_environment, tmp_path, module):
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env=clean_environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert b"ModuleNotFoundError" in done.stderr


@pytest.fixture(scope="module")
def server(files, clean_environment, tmp_path_factory):
    """The address of `mlflow models serve`, run in the clean environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-m", str(files), "-h", "127.0.0.1", "-p", str(port)],
            env=clean_environment,
            cwd=place,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not answers(f"{address}/ping"):
            assert process.poll() is None and time.monotonic() < deadline, (
                place / "log"
            ).read_text()
            time.sleep(0.2)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def post(server, body):
    """Status and JSON of the answer to `body`."""
    request = urllib.request.Request(
        f"{server}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_over_http_in_a_clean_environment(server, model):
    png = base64.b64encode(encoded(IMAGE)).decode()
    wanted, small = model.predict(IMAGE), model.predict(SMALL)
    for inputs in (png, IMAGE.tolist(), {"image": png}):
        status, answer = post(server, {"inputs": inputs})
        assert status == 200
        assert (np.array(answer["predictions"]) == wanted).all()
    for inputs in ([png, SMALL.tolist()], [IMAGE.tolist(), SMALL.tolist()]):
        status, answer = post(server, {"inputs": inputs})
        assert status == 200
        assert (np.array(answer["predictions"][0]) == wanted).all()
        assert (np.array(answer["predictions"][1]) == small).all()
    status, answer = post(server, {"inputs": [IMAGE.tolist()]})
    assert (status, np.array(answer["predictions"]).shape) == (200, (1, 47, 70))


def test_over_http_a_mistake_is_answered_with_the_reason(server):
    status, answer = post(server, {"inputs": "no image"})
    assert status == 400
    assert "is text, but not base64" in str(answer)
    assert post(server, {"inputs": SMALL.tolist()})[0] == 200
