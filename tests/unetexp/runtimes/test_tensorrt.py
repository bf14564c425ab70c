"""TensorRT where there is no GPU: what is said, and the graph that an engine would be built of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.exportable import subject_of
from unetexp.errors import ConfigError, UserError
from unetexp.export.formats import writer_of
from unetexp.runtimes.runtime import format_module, format_of
from unetexp.runtimes.tensorrt_runtime import joined, split

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")


@without_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_export_says_what_it_needs(precision):
    with pytest.raises(UserError, match=r"NVIDIA GPU.*unetexp\[tensorrt\].*onnx or openvino"):
        writer_of("tensorrt", precision).require_installed()


@without_gpu
def test_so_does_a_file(tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(joined("{}", b"engine"))

    assert format_of(path) == "tensorrt"
    with pytest.raises(UserError, match="NVIDIA GPU"):
        format_module("tensorrt").load_file(path, "auto", None)


def test_an_engine_is_not_for_a_cpu(tmp_path):
    with pytest.raises(ConfigError, match="cuda, or auto"):
        format_module("tensorrt").load_file(tmp_path / "model.engine", "cpu", None)


@pytest.mark.parametrize("text", ["", '{"café": 1}' * 999])
def test_the_description_is_before_the_engine(text, tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(joined(text, b"\x00engine"))

    assert split(path) == (text, b"\x00engine")


def test_its_int8_graph_has_the_form_that_tensorrt_takes():
    """Zero is 0, weights are rounded in the graph, biases are not: see TensorRT's Q/DQ rules."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from unetexp.export.formats.onnx_int8 import quantised_model

    images = np.random.default_rng(0).normal(size=(2, 1, 3, 32, 32)).astype(np.float32)
    graph = quantised_model(subject_of(precision="int8", calibration=images), symmetric=True).graph

    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    rounding = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    made_by = {node.output[0]: node for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantised = [node for node in convolutions if node.input[1] in made_by]
    assert rounding and all(not stored[node.input[2]].any() for node in rounding)
    assert all(stored[node.input[2]].dtype == np.int8 for node in rounding)
    assert len(quantised) == len(convolutions) - 1  # all but the head
    assert all(made_by[node.input[1]].op_type == "DequantizeLinear" for node in quantised)
    assert all(node.input[2] in stored for node in quantised if len(node.input) > 2)
