"""Latency: the time of one image, on a model that is not changed."""

from __future__ import annotations

import pytest
import torch

from unetexp.metrics import latency
from unetexp.metrics.latency import latency_ms


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
