"""ONNX, by torch's exporter: for ONNX Runtime, and what OpenVINO and TensorRT read."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unetexp.errors import UserError
from unetexp.export.subject import Subject
from unetexp.runtimes.description import KEY
from unetexp.runtimes.installed import required

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
_EXTRA = "onnx"


def require_installed() -> None:
    """See `Writer`."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        required(module, _EXTRA, "an export to ONNX")


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. In fp16 the weights and the layers between input and output are halves."""
    import onnx

    onnx.save(model_in_precision(subject), path)


def describe(path: Path, text: str) -> None:
    """See `Writer`."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: text})
    onnx.save(model, path)


def model_in_precision(subject: Subject) -> onnx.ModelProto:
    """The graph in fp32 or fp16, with images and logits in fp32."""
    model = onnx_model(subject)
    if subject.precision == "fp32":
        return model
    from onnxruntime.transformers.float16 import convert_float_to_float16

    halved: onnx.ModelProto = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True
    )
    return halved


def onnx_model(subject: Subject) -> onnx.ModelProto:
    """The graph in fp32; UserError for an operator that ONNX lacks."""
    with _quietly():
        try:
            program = torch.onnx.export(
                subject.program,
                dynamo=True,
                verbose=False,
                input_names=[subject.input_name],
                output_names=[subject.output_name],
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(
                f"ONNX lacks an operator of this network: {_first_line(error)}. Choose --to "
                "torchscript or --to pt2, which take every network."
            ) from None
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _name_axes(model, subject)
    return model


def _name_axes(model: onnx.ModelProto, subject: Subject) -> None:
    """`batch`, `height` and `width` instead of the exporter's expressions."""
    height, width = subject.size_axes
    for value, rows, columns in (
        (model.graph.input[0], height, width),
        (model.graph.output[0], *((1, 2) if subject.preprocessing else (2, 3))),
    ):
        axes = value.type.tensor_type.shape.dim
        axes[0].dim_param, axes[rows].dim_param, axes[columns].dim_param = (
            "batch",
            "height",
            "width",
        )


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().partition("\n")[0]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's progress and its warnings about axes."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def as_bytes(model: Any) -> bytes:
    """The model as it is in a file."""
    serialized: bytes = model.SerializeToString()
    return serialized
