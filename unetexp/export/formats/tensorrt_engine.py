"""TensorRT: an engine for the GPU of this machine, from the ONNX graph.

Not run in the tests, which have no GPU. The file is the length of the description (4 bytes, the
lowest first), the description, and the engine as TensorRT writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unetexp.errors import UserError
from unetexp.export.formats import onnx_file
from unetexp.export.formats.onnx_file import as_bytes
from unetexp.export.formats.onnx_int8 import quantised_model
from unetexp.export.subject import Subject
from unetexp.runtimes.tensorrt_runtime import joined, required_tensorrt, split

SUFFIX = ".engine"
MOST_IMAGES, MOST_PX = 8, 1024  # larger images are predicted in tiles of that side
_USUAL_PX = 512


def require_installed() -> None:
    """See `Writer`; needs an NVIDIA GPU."""
    required_tensorrt("an export to TensorRT")
    onnx_file.require_installed()


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. The precision is the graph's: TensorRT changes no number type."""
    path.write_bytes(joined("", _engine(subject)))


def describe(path: Path, text: str) -> None:
    """See `Writer`."""
    _, engine = split(path)
    path.write_bytes(joined(text, engine))


def _engine(subject: Subject) -> bytes:
    trt = required_tensorrt("an export to TensorRT")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(as_bytes(_graph(subject))):
        raise UserError(
            f"TensorRT lacks an operator of this network: {parser.get_error(0).desc()}. Choose "
            "--to onnx, which runs on the GPU with onnxruntime-gpu."
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32, as everywhere here
    config.add_optimization_profile(_sizes(builder, subject))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(
            "TensorRT cannot build an engine of this network on this GPU; its lines above say "
            "why. Choose --to onnx, which runs on the GPU with onnxruntime-gpu."
        )
    return bytes(engine)


def _graph(subject: Subject) -> Any:
    if subject.precision == "int8":
        return quantised_model(subject, symmetric=True)
    return onnx_file.model_in_precision(subject)


def _sizes(builder: Any, subject: Subject) -> Any:
    """From one pixel to the largest tile; the engine is fastest at the usual size."""
    profile = builder.create_optimization_profile()
    shapes = []
    for images, side in ((1, 1), (1, _USUAL_PX), (MOST_IMAGES, MOST_PX)):
        shape = list(subject.example.shape)
        shape[0] = images
        for axis in subject.size_axes:
            shape[axis] = side
        shapes.append(tuple(shape))
    profile.set_shape(subject.input_name, *shapes)
    return profile
