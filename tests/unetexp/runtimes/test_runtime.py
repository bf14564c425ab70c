"""Files that cannot be used: each is one message that says why and what to do."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.exportable import image_spec
from unetexp.errors import CheckpointError, ConfigError, UserError
from unetexp.runtimes.description import KEY, LAYOUT, Description, read_text
from unetexp.runtimes.probe import PackedArray, Probe
from unetexp.runtimes.runtime import open_runtime
from unetexp.version import __version__

IMAGE = np.linspace(-1, 1, 1 * 3 * 8 * 8, dtype=np.float32).reshape(1, 3, 8, 8)


def described(**changes):
    fields = {
        "format": "onnx",
        "precision": "fp32",
        "model": image_spec(),
        "size_multiple": 1,
        "runtime": "onnxruntime 1.0",
    }
    return Description(**(fields | changes))


def doubling(path, text):
    """An ONNX file whose logits are twice the image."""
    axes = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["images", "images"], ["logits"])],
        "doubling",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, axes)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if text is not None:
        helper.set_model_props(model, {KEY: text})
    onnx.save(model, path)
    return path


def probe(factor):
    return Probe.of(IMAGE, factor * IMAGE, "fp32")


def test_a_runtime_that_gives_the_same_numbers_is_used(tmp_path):
    path = doubling(tmp_path / "model.onnx", described(probe=probe(2)).text())
    runtime = open_runtime(path, "cpu")
    assert np.array_equal(runtime(IMAGE), 2 * IMAGE)
    assert runtime.device == "cpu"


def test_a_runtime_that_gives_other_numbers_is_refused(tmp_path):
    path = doubling(tmp_path / "model.onnx", described(probe=probe(2.1)).text())
    with pytest.raises(CheckpointError, match=r"other numbers here than onnxruntime 1\.0 gave"):
        open_runtime(path)
    assert open_runtime(path, probed=False).description.precision == "fp32"


def test_onnx_is_known_by_its_content(tmp_path):
    assert open_runtime(doubling(tmp_path / "model", described().text())).description.format


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "says nothing about its classes"),
        ("{", "its description is damaged"),
        ("[]", "its description is damaged"),
        (described(layout=LAYOUT + 1, unetexp="9.0").text(), "written by unetexp 9.0"),
        (described().text().replace("size_mult", "s"), "export the"),
    ],
)
def test_a_description_that_cannot_be_used(text, words, tmp_path):
    path = doubling(tmp_path / "model.onnx", text)
    with pytest.raises(CheckpointError, match=words) as raised:
        open_runtime(path)
    assert str(path) in str(raised.value)


def test_a_newer_version_is_named_with_this_one():
    text = described(layout=LAYOUT + 1, unetexp="9.0").text()
    with pytest.raises(CheckpointError, match=__version__):
        read_text(text, "model.onnx")


def test_other_and_damaged_files(tmp_path):
    other, damaged = tmp_path / "photo.png", tmp_path / "model.onnx"
    other.write_bytes(b"\x89PNG\r\n\x1a\n")
    damaged.write_bytes(b"\x08\x07" + bytes(50))
    with pytest.raises(CheckpointError, match="not an exported model"):
        open_runtime(other)
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot load it"):
        open_runtime(damaged)
    with pytest.raises(CheckpointError, match="not an exported model"):
        open_runtime(tmp_path / "missing.onnx")


def test_openvino_needs_its_weights(tmp_path):
    path = tmp_path / "model.xml"
    path.write_text('<?xml version="1.0"?>\n<net name="unet" version="11"></net>')
    with pytest.raises(CheckpointError, match=r"model\.bin, are not beside it"):
        open_runtime(path)
    (tmp_path / "model.bin").write_bytes(b"")
    path.write_text('<?xml version="1.0"?>\n<net name="unet" version="11"><layers>')
    with pytest.raises(CheckpointError, match="OpenVINO cannot load it"):
        open_runtime(path)


@pytest.mark.parametrize(
    ("module", "extra", "name", "content"),
    [
        ("onnxruntime", "onnx", "model.onnx", b"\x08\x09rest"),
        ("openvino", "openvino", "model.xml", b'<?xml version="1.0"?><net name="u">'),
    ],
)
def test_a_runtime_that_is_not_installed_names_its_extra(
    module, extra, name, content, tmp_path, monkeypatch
):
    (tmp_path / name).write_bytes(content)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs {module}.*pip install 'unetexp\[{extra}\]'"):
        open_runtime(tmp_path / name)


def test_a_gpu_that_the_runtime_lacks(tmp_path):
    path = doubling(tmp_path / "model.onnx", described().text())
    with pytest.raises(ConfigError, match="device 'cuda': this ONNX Runtime computes on the CPU"):
        open_runtime(path, "cuda")
    (tmp_path / "model.xml").write_text('<?xml version="1.0"?><net name="u">')
    with pytest.raises(ConfigError, match="device 'cuda': OpenVINO computes on the CPU"):
        open_runtime(tmp_path / "model.xml", "cuda")


def test_a_description_is_json_and_comes_back():
    one = described(probe=probe(2), proof={"miou": 0.5}, run_id="0" * 32, commit="abc")
    assert read_text(one.text(), "x") == one
    assert json.loads(one.text())["model"]["class_names"] == ["back", "cell", "wall"]


def test_a_file_is_used_without_torch(tmp_path):
    path = doubling(tmp_path / "model.onnx", described(probe=probe(2)).text())
    code = (
        "import sys; from unetexp.runtimes.runtime import open_runtime;"
        f"print(open_runtime({str(path)!r}).description.format, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["onnx", "False"]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_arrays_come_back(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    assert np.array_equal(PackedArray.of(array).unpacked(), array)
    assert PackedArray.of(array).unpacked().dtype == dtype


def test_differences():
    logits = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    one = Probe.of(IMAGE, logits, "fp32")
    assert one.difference(logits) == 0
    assert one.difference(logits + 0.01 * logits.std()) == pytest.approx(0.01, rel=1e-3)
    assert one.difference(np.roll(logits, 3)) > 0.5
    assert one.difference(logits[:, :2]) == one.difference(logits * np.nan) == np.inf
    labels = np.zeros((1, 4, 4), np.uint8)
    found = labels.copy()
    found[0, 0] = 1
    assert Probe.of(IMAGE, labels, "int8").difference(found) == 0.25
