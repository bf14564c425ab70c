"""Latency: the time of one image, on a model that is not changed."""

from __future__ import annotations

import pytest
import torch

from unetexp.inference.predictor import Predictor
from unetexp.metrics import latency
from unetexp.metrics.latency import latency_ms, latency_once_ms
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.saved_model import ModelSpec


class Slow(torch.nn.Module):
    """A model whose calls take `seconds`, one after the other, on a simulated clock."""

    def __init__(self, seconds, monkeypatch):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seconds, self.now, self.calls = iter(seconds), 0.0, []
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def forward(self, images):
        self.calls.append((tuple(images.shape), self.training))
        self.now += next(self.seconds)
        return images


def test_it_is_the_median_after_a_warm_up_of_one_image_in_eval_mode(monkeypatch):
    warm_up, timed = [0.9, 0.5], [0.02, 0.03, 0.01, 0.2, 0.02, 0.02, 0.01]
    model = Slow([*warm_up, *timed], monkeypatch).train()
    assert latency_ms(model, 3, 5, 7) == pytest.approx(20)
    assert model.calls == [((1, 3, 5, 7), False)] * 9
    assert model.training


def test_a_slow_model_is_not_asked_more_often_than_need_be(monkeypatch):
    model = Slow([0.8] * 9, monkeypatch)
    assert latency_ms(model, 1, 8, 8) == pytest.approx(800)
    assert len(model.calls) == 3


def calls_of(model, run):
    """How often `run` calls the model."""
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    run()
    handle.remove()
    return len(calls)


class TestOnce:
    @pytest.fixture(autouse=True)
    def fresh_process(self, monkeypatch):
        monkeypatch.setattr(latency, "_MEASURED_MS", {})

    def test_models_that_are_built_alike_are_measured_once(self):
        measured = latency_once_ms(spec().build(), 3, 32, 40)
        again = spec().build()
        assert calls_of(again, lambda: latency_once_ms(again, 3, 32, 40)) == 0
        assert latency_once_ms(again, 3, 32, 40) == measured > 0

    @pytest.mark.parametrize(
        ("other", "size"),
        [
            ({"decoder": Decoder(upsampling="nearest")}, (32, 40)),
            ({"encoder": ResNet(name="resnet34", weights="none")}, (32, 40)),
            ({"encoder": ResNet(name="resnet18", weights="none", freeze="all")}, (32, 40)),
            ({"class_names": ("a", "b", "c")}, (32, 40)),
            ({}, (32, 48)),
        ],
        ids=str,
    )
    def test_another_model_or_size_is_measured(self, other, size):
        latency_once_ms(spec().build(), 3, 32, 40)
        model = spec().model_copy(update=other).build()
        assert calls_of(model, lambda: latency_once_ms(model, 3, *size)) > 0

    def test_with_other_threads_it_is_measured_again(self):
        model, threads = spec().build(), torch.get_num_threads()
        latency_once_ms(model, 3, 32, 40)
        torch.set_num_threads(threads + 1)
        try:
            assert calls_of(model, lambda: latency_once_ms(model, 3, 32, 40)) > 0
        finally:
            torch.set_num_threads(threads)


def conditions_of(model, run):
    """Under which conditions and with which tiles `run` calls the model."""
    found = []

    def note(module, given):
        found.append(
            (
                tuple(given[0].shape[1:]),
                given[0].dtype,
                given[0].is_contiguous(),
                all(weight.is_contiguous() for weight in module.parameters()),
                torch.is_autocast_enabled("cpu"),
                torch.backends.cudnn.allow_tf32,
                torch.backends.cudnn.benchmark,
                module.training,
            )
        )

    handle = model.register_forward_pre_hook(note)
    run()
    handle.remove()
    return found


@pytest.mark.parametrize("size", [(40, 48), (32, 1100)])
def test_it_is_measured_as_the_model_is_served(size, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    model = spec().build().to(memory_format=torch.channels_last).train()
    image = torch.zeros(3, *size, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measured = conditions_of(model, lambda: latency_ms(model, 3, *size))
        served = conditions_of(model, lambda: Predictor(model, spec()).labels(image))
    assert set(measured) == set(served)
    assert len(measured) % len(served) == 0
    assert measured[0][1:] == (torch.float32, True, True, False, False, False, False)
    assert torch.backends.cudnn.benchmark


def test_a_model_in_another_layout_is_left_as_it_is():
    model = spec().build().to(memory_format=torch.channels_last).train()
    weights = [weight.data_ptr() for weight in model.parameters()]
    latency_ms(model, 3, 32, 32)
    assert weights == [weight.data_ptr() for weight in model.parameters()]
    assert model.encoder.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.training


def spec():
    return ModelSpec(
        class_names=("a", "b"),
        in_channels=3,
        image_max=255,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        encoder=ResNet(name="resnet18", weights="none"),
        decoder=Decoder(),
    )
