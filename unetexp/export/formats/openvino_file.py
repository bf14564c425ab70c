"""OpenVINO's intermediate representation, NAME.xml and NAME.bin, from the ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unetexp.errors import UserError
from unetexp.export.formats.onnx_file import as_bytes, onnx_model
from unetexp.export.subject import Subject
from unetexp.runtimes.description import KEY
from unetexp.runtimes.installed import required

SUFFIX = ".xml"
_EXTRA = "openvino"


def require_installed() -> None:
    """See `Writer`."""
    for module in ("openvino", "onnx", "onnxscript"):
        required(module, _EXTRA, "an export to OpenVINO")


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. In fp16 the weights are halves; the runtime chooses what it computes in."""
    import openvino as ov

    ov.save_model(openvino_model(subject), path, compress_to_fp16=subject.precision == "fp16")


def describe(path: Path, text: str) -> None:
    """See `Writer`."""
    import openvino as ov

    # From memory: the weights' file is written anew while the graph refers to it.
    model = ov.Core().read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())
    model.set_rt_info(text, [KEY])
    ov.save_model(model, path, compress_to_fp16=False)


def openvino_model(subject: Subject) -> Any:
    """The graph in fp32; UserError for an operator that OpenVINO lacks."""
    import openvino as ov

    try:
        return ov.Core().read_model(as_bytes(onnx_model(subject)))
    except RuntimeError as error:
        raise UserError(
            f"OpenVINO lacks an operator of this network: {str(error).strip()}. Choose --to onnx, "
            "--to torchscript or --to pt2."
        ) from None
