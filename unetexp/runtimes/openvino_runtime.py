"""OpenVINO's files, NAME.xml with the weights in NAME.bin beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetexp.errors import CheckpointError
from unetexp.runtimes.description import KEY, Precision
from unetexp.runtimes.installed import require_cpu, required
from unetexp.runtimes.runtime import LoadedFile
from unetexp.system.machine import available_cores

SUFFIXES = (".xml",)


def recognises(path: Path, head: bytes) -> bool:
    """By the first element."""
    return head.lstrip().startswith(b"<?xml") and b"<net " in head


def load_file(path: Path, device: str, threads: int | None) -> LoadedFile:
    """See `FormatModule`."""
    ov = required("openvino", "openvino", f"{path}, an OpenVINO file,")
    require_cpu(device, "OpenVINO")
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(
            f"{path}: its weights, {path.with_suffix('.bin').name}, are not beside it. Copy both."
        )
    try:
        core = ov.Core()
        model = core.read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        compiled = core.compile_model(model, "CPU", _settings(_precision(text), threads))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: OpenVINO cannot load it: {error}") from None
    request = compiled.create_infer_request()
    shape = compiled.outputs[0].partial_shape
    fixed = not shape.rank.is_dynamic
    least = [side.get_min_length() for side in list(shape)[-2:]] if fixed else [1, 1]
    rows = 1 if fixed and len(shape) == 3 else 2  # of label maps: the images have the channels last

    def run(images: NDArray[Any]) -> NDArray[Any]:
        height, width = images.shape[rows : rows + 2]
        output: NDArray[Any] = request.infer([_padded(images, rows, least)])[0]
        return output[..., :height, :width]

    return LoadedFile(text, run, f"openvino {ov.__version__.partition('-')[0]}", "cpu")


def _padded(images: NDArray[Any], rows: int, least: Sequence[int]) -> NDArray[Any]:
    """Images with sides of at least `least`, padded as the graph does.

    OpenVINO infers that what the graph pads to a multiple of 32 has sides of 32 and more, overlooks
    that it crops the logits again, and fails on smaller images.
    """
    given = images.shape[rows : rows + 2]
    missing = [max(side - found, 0) for side, found in zip(least, given, strict=True)]
    if not any(missing):
        return images
    pads = [(0, 0)] * images.ndim
    pads[rows : rows + 2] = [(0, more) for more in missing]
    return np.pad(images, pads, mode="edge")


def _precision(text: str | None) -> Precision | None:
    """As the description says; None for one that is damaged, which `read_text` reports."""
    try:
        precision: Precision | None = json.loads(text or "{}").get("precision")
    except (ValueError, AttributeError):
        return None
    return precision


def _settings(precision: Precision | None, threads: int | None) -> dict[str, Any]:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or available_cores(),
    }
    if precision == "fp16":  # OpenVINO's choice: 16 bits (bf16, fp16) where the processor has them
        return settings
    return settings | {"INFERENCE_PRECISION_HINT": "f32"}  # else 16 bits there, with other labels
