"""What a run is trained on: all that its figures depend on beside its configuration and data."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from unetexp.config import TrainConfig
from unetexp.device import computes_in_bf16
from unetexp.version import __version__

MACHINE = "machine."  # begins the names of these tags of a trial's run


def machine(config: TrainConfig, device: torch.device, ranks: int = 1) -> dict[str, str]:
    """`cpu`, `threads`, `device` (cpu or the GPU's name), `ranks`, `precision` and versions.

    `precision` is what the configuration's came to be on this hardware.
    """
    on_gpu = device.type == "cuda"
    return {
        "cpu": cpu_model(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "ranks": str(ranks),
        "precision": "bf16" if computes_in_bf16(config, device) else "fp32",
        "torch": torch.__version__,
        "unetexp": __version__,
    }


def cpu_model() -> str:
    """The processor's name, with what tells two of the same name apart; else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (li.partition(":") for li in lines)}
    numbers = [facts[name] for name in ("cpu family", "model", "stepping") if name in facts]
    name = facts.get("model name", platform.machine())
    return f"{name} ({'/'.join(numbers)})" if numbers else name
