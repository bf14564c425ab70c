"""TensorRT engines, on the NVIDIA GPU that they were built for.

Not run in the tests, which have no GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from unetexp.errors import CheckpointError, ConfigError, UserError
from unetexp.runtimes.installed import required, required_torch
from unetexp.runtimes.runtime import LoadedFile

SUFFIXES = (".engine",)
_LENGTH = 4  # bytes of the description's length


def required_tensorrt(purpose: str) -> Any:
    """The module `tensorrt`; UserError where there is no GPU for it, or it is not installed."""
    if not required_torch(purpose).cuda.is_available():
        raise UserError(
            f"{purpose} needs an NVIDIA GPU, and torch finds none on this machine. An engine fits "
            "the kind of GPU that it was built on: use the machine that will serve it, with pip "
            "install 'unetexp[tensorrt]'. Without a GPU choose onnx or openvino."
        )
    return required("tensorrt", "tensorrt", purpose)


def joined(text: str, engine: bytes) -> bytes:
    """A file's content."""
    description = text.encode()
    return len(description).to_bytes(_LENGTH, "little") + description + engine


def split(path: Path) -> tuple[str, bytes]:
    """The description and the engine in a file."""
    content = path.read_bytes()
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    return content[_LENGTH:end].decode(), content[end:]


def recognises(path: Path, head: bytes) -> bool:
    """By its name."""
    return path.suffix.lower() in SUFFIXES


def load_file(path: Path, device: str, threads: int | None) -> LoadedFile:
    """See `FormatModule`."""
    if device == "cpu":
        raise ConfigError(f"device 'cpu': {path} is a TensorRT engine. Use cuda, or auto.")
    trt = required_tensorrt(f"{path}, a TensorRT engine,")
    try:
        text, content = split(path)
    except UnicodeDecodeError:
        raise CheckpointError(
            f"{path}: this engine says nothing about its classes and images. Only files that "
            "`unetexp export` has written can be used."
        ) from None
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(content)
    if engine is None:
        raise CheckpointError(
            f"{path}: TensorRT {trt.__version__} cannot load it on this GPU. An engine "
            "fits the version and the kind of GPU that it was built with: export the model again "
            "on this machine."
        )
    return LoadedFile(
        text or None, _Engine(trt, engine, path), f"tensorrt {trt.__version__}", "cuda"
    )


class _Engine:
    """An engine with one input and one output."""

    def __init__(self, trt: Any, engine: Any, path: Path) -> None:
        self._engine, self._path = engine, path
        self._torch = required_torch(f"{path}, a TensorRT engine,")
        self._context = engine.create_execution_context()
        self._stream = self._torch.cuda.Stream()
        names = [engine.get_tensor_name(n) for n in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        (self._input,) = given
        (self._output,) = set(names) - set(given)
        kind = str(engine.get_tensor_dtype(self._output)).rpartition(".")[2]
        self._dtype = getattr(self._torch, _TYPES[kind])

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        torch = self._torch
        given = torch.from_numpy(images).cuda().contiguous()
        if not self._context.set_input_shape(self._input, tuple(given.shape)):
            smallest, _, largest = self._engine.get_tensor_profile_shape(self._input, 0)
            raise UserError(
                f"{self._path}: this engine takes images of shape {tuple(smallest)} to "
                f"{tuple(largest)} and was given {tuple(given.shape)}."
            )
        shape = tuple(self._context.get_tensor_shape(self._output))
        output = torch.empty(shape, dtype=self._dtype, device=given.device)
        self._context.set_tensor_address(self._input, given.data_ptr())
        self._context.set_tensor_address(self._output, output.data_ptr())
        self._stream.wait_stream(torch.cuda.current_stream())
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError(f"{self._path}: TensorRT failed; its lines above say why.")
        self._stream.synchronize()
        result: NDArray[Any] = output.cpu().numpy()
        return result


_TYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}  # TensorRT's, torch's
