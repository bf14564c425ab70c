"""Latency: the time of one image, on a model that is left as it was."""

from __future__ import annotations

import time

import torch

from unetexp.latency import latency_ms


class Sleeper(torch.nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seconds, self.calls = seconds, []

    def forward(self, images):
        self.calls.append((tuple(images.shape), self.training))
        time.sleep(self.seconds)
        return images


def test_it_is_the_time_of_one_image_in_eval_mode():
    model = Sleeper(0.02).train()
    assert 20 <= latency_ms(model, 3, 5, 7) < 200
    assert set(model.calls) == {((1, 3, 5, 7), False)}
    assert model.training


def test_a_slow_model_is_not_asked_more_often_than_need_be():
    model = Sleeper(0.8)
    assert latency_ms(model, 1, 8, 8) >= 800
    assert len(model.calls) == 3
