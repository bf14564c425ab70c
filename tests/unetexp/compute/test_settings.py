"""Settings that are `auto`: by rule, by measurement, and what is chosen explicitly wins."""

from __future__ import annotations

import pytest
import torch

from unetexp.compute.settings import ComputeSettings, resolved
from unetexp.training.config import TrainConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_computes_in_fp16(bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    settings = resolved(TrainConfig(), CUDA)
    assert (settings.precision, settings.compile) == (expected, "none")


def test_what_was_measured_fills_auto_and_an_explicit_setting_wins():
    measured = ComputeSettings("fp32", "contiguous", "reduce-overhead")
    assert resolved(TrainConfig(), CPU, measured) == measured
    config = TrainConfig(precision="fp16", compile="none", memory_format="channels_last")
    assert resolved(config, CPU, measured) == ComputeSettings("fp16", "channels_last", "none")


def test_nothing_is_compiled_without_a_measurement():
    assert resolved(TrainConfig(), CPU).compile == "none"
    assert resolved(TrainConfig(compile="default"), CPU).compile == "default"


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_only_fp16_scales_the_loss(precision):
    settings = ComputeSettings(precision, "contiguous")
    loss = settings.scaler(CPU).scale(torch.ones(()))
    assert (float(loss) > 1) == (precision == "fp16")
    with settings.autocast(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    expected = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    assert product.dtype == expected[precision]
