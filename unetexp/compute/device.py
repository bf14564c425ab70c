"""Devices: the one that was asked for, GPUs that torch cannot use, and threads of the CPU."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from unetexp.errors import ConfigError, UserError, not_a_choice
from unetexp.system.machine import available_cores, cpu_model

_ARCH = re.compile(r"(sm|compute)_(\d{2,3})([af]?)")
_DRIVER = Path("/proc/driver/nvidia/version")
_DRIVER_OF_CUDA_13 = 580
_NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available")
_ON_THE_CPU = "--gpus 0 for a sweep, --device cpu for unetexp"


def pick_device(name: str = "auto") -> torch.device:
    """`auto`: the first GPU if there is one, else the CPU.

    Raises ConfigError for a GPU that is not there, and as `require_usable_gpus`.
    """
    if name == "auto":
        require_usable_gpus(0)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", name):
        raise ConfigError(not_a_choice("device", name, ["auto", "cpu", "cuda", "cuda:N"]))
    device = torch.device(name)
    if device.type == "cuda":
        _require_gpu(name, device.index or 0)
    return device


def _require_gpu(name: str, index: int) -> None:
    there = torch.cuda.device_count()
    if not there:
        require_usable_gpus()
        raise ConfigError(f"device {name!r}: torch finds no GPU here. Use cpu, or auto.")
    if index >= there:
        raise ConfigError(
            f"device {name!r}: this machine has {there} GPU{'' if there == 1 else 's'}. Use "
            f"cuda:0{'' if there == 1 else f' to cuda:{there - 1}'}, cpu, or auto."
        )
    require_usable_gpus(index)


def device_kind(device: torch.device) -> str:
    """The GPU's name, or the processor's: devices of one kind are taken to be equally fast."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def limit_threads() -> None:
    """Compute with no more threads than there are cores for this process.

    torch counts the machine's cores; within a container's CPU quota more threads wait for each
    other.
    """
    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def require_usable_gpus(only: int | None = None) -> None:
    """Raise UserError where torch cannot compute on a GPU that is there, or on the one of `only`.

    Either the driver does not work with this build of torch, or the build has no code for the GPU.
    """
    if not torch.cuda.is_available():
        if problem := _driver_problem():
            raise UserError(
                f"there is a GPU driver that torch cannot use: {problem} This torch "
                f"{torch.__version__} is built for CUDA {torch.version.cuda}; CUDA 13 needs an "
                f"NVIDIA driver of at least {_DRIVER_OF_CUDA_13} (docs/requirements.md). Update "
                f"the driver, or compute on the CPU: {_ON_THE_CPU}."
            )
        return
    built_for = [arch for arch in torch.cuda.get_arch_list() if _ARCH.fullmatch(arch)]
    for index in range(torch.cuda.device_count()) if only is None else [only]:
        capability = torch.cuda.get_device_capability(index)
        if built_for and not any(_runs(arch, capability) for arch in built_for):
            major, minor = capability
            raise UserError(
                f"GPU {index}, {torch.cuda.get_device_name(index)}, has compute capability "
                f"{major}.{minor}, and this torch {torch.__version__} holds code for "
                f"{', '.join(built_for)} only (docs/requirements.md). Leave that GPU out with "
                f"CUDA_VISIBLE_DEVICES, install a build of torch with code for sm_{major}{minor}, "
                f"or compute on the CPU: {_ON_THE_CPU}."
            )


def unused_driver_warning() -> str | None:
    """What to say where an NVIDIA driver is there, nobody hid its GPUs, and torch finds none."""
    if torch.cuda.is_available() or not _DRIVER.exists() or "CUDA_VISIBLE_DEVICES" in os.environ:
        return None
    why = "is built for the CPU" if torch.version.cuda is None else "finds no GPU"
    return (
        f"there is an NVIDIA driver here, but this torch {torch.__version__} {why}: training runs "
        "on the CPU. In a container, pass the GPUs in (docker run --gpus all)."
    )


def _driver_problem() -> str | None:
    """Why CUDA does not start, where that is neither for want of a GPU nor of a driver."""
    if torch.version.cuda is None:
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        return None if any(expected in reason for expected in _NO_GPU) else reason
    return None


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    """Whether code for `arch` runs on a GPU: its own generation's, or PTX of an earlier one."""
    match = _ARCH.fullmatch(arch)
    assert match is not None
    kind, version, suffix = match.groups()
    built = (int(version[:-1]), int(version[-1]))
    if suffix == "a":
        return built == capability
    if kind == "compute" and not suffix:
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]
