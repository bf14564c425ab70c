"""int8 for ONNX, by ONNX Runtime: the graph rounds weights and values (QDQ)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetexp.export.formats.onnx_file import SUFFIX, describe, onnx_model, require_installed
from unetexp.export.subject import Subject

if TYPE_CHECKING:
    import onnx

__all__ = ["SUFFIX", "describe", "quantised_model", "require_installed", "write"]

# What ONNX Runtime computes in int8 on a CPU. Interpolation in steps of 1/256 blurs logits.
_OPERATORS = ["Conv", "MatMul", "Gemm", "Add", "Concat", "MaxPool", "Relu", "Clip"]


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. Weights have a scale for each channel, values one for each layer.

    The convolution that makes the logits stays in fp32.
    """
    import onnx

    onnx.save(quantised_model(subject), path)


def quantised_model(subject: Subject, *, symmetric: bool = False) -> onnx.ModelProto:
    """The graph with the rounding written out.

    `symmetric` is the form that TensorRT takes: zero is 0, weights are rounded in the graph, and
    biases stay as they are.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx_model(subject)
    _name_nodes(model)
    options = {"ActivationSymmetric": True, "AddQDQPairToWeight": True, "QuantizeBias": False}
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "int8.onnx"
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)  # it advises a pre-processing that torch has done
        try:
            quantize_static(
                model,
                written,
                _reader(subject),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[_head(model)],
                extra_options=options if symmetric else {},
            )
        finally:
            logging.root.setLevel(level)
        return onnx.load(written)


def _reader(subject: Subject) -> Any:
    """The calibration images one by one, as ONNX Runtime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Images(CalibrationDataReader):  # type: ignore[misc]  # it carries no types
        def __init__(self) -> None:
            self._images: Iterator[Any] = iter(subject.calibration)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self._images, None)
            return None if images is None else {subject.input_name: images}

    return Images()


def _name_nodes(model: onnx.ModelProto) -> None:
    """Nodes are left out by name."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"


def _head(model: onnx.ModelProto) -> str:
    """The name of the last convolution."""
    return str([node.name for node in model.graph.node if node.op_type == "Conv"][-1])
