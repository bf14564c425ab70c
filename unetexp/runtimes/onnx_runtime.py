"""ONNX files, in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from unetexp.errors import CheckpointError, ConfigError
from unetexp.runtimes.description import KEY
from unetexp.runtimes.installed import required
from unetexp.runtimes.runtime import LoadedFile
from unetexp.system.machine import available_cores

SUFFIXES = (".onnx",)
_VERSION_TAG = 0x08
_NEXT_TAGS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)  # producer, domain, graph, opset, ...
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def recognises(path: Path, head: bytes) -> bool:
    """By its name, or by the message's first field, the version, and the tag of the next one."""
    by_content = len(head) > 2 and head[0] == _VERSION_TAG and head[2] in _NEXT_TAGS
    return path.suffix.lower() in SUFFIXES or by_content


def load_file(path: Path, device: str, threads: int | None) -> LoadedFile:
    """See `FormatModule`."""
    ort = required("onnxruntime", "onnx", f"{path}, an ONNX file,")
    provider = _provider(ort, device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3  # errors: others tell of nodes that stay on the CPU
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # of several classes, without a common base
        raise CheckpointError(f"{path}: ONNX Runtime cannot load it: {error}") from None
    (given,) = session.get_inputs()

    def run(images: NDArray[Any]) -> NDArray[Any]:
        output: NDArray[Any] = session.run(None, {given.name: images})[0]
        return output

    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    kind = "cuda" if provider == _CUDA else "cpu"
    return LoadedFile(text, run, f"onnxruntime {ort.__version__}", kind)


def _provider(ort: Any, device: str) -> str:
    has_cuda = _CUDA in ort.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise ConfigError(
            f"device {device!r}: this ONNX Runtime computes on the CPU. Install onnxruntime-gpu "
            "instead of onnxruntime, or use cpu."
        )
    return _CUDA if has_cuda and device != "cpu" else _CPU
