"""The recipe's default settings, trained once for the whole time: no search."""

from __future__ import annotations

import time

import torch

from benchmarks.jobs.job import Clock, Job, Outcome
from sweeps.driver.encoder_weights import settle_weights
from unetexp.component import override
from unetexp.compute.device import limit_threads, pick_device
from unetexp.data import open_dataset
from unetexp.inference.evaluation import assess
from unetexp.models.saved_model import model_spec
from unetexp.training.config import TrainConfig, decode_config
from unetexp.training.loop import fit
from unetexp.training.state import TrainState

_SAFETY = 0.95  # of the time that is left: one epoch is not as long as the next


def plain_defaults(job: Job, clock: Clock) -> Outcome:
    """As many epochs as fit, which one epoch in advance tells; the best of them by validation."""
    limit_threads()
    device, recipe = pick_device(), job.recipe
    data = open_dataset(recipe.base.data)
    config = settle_weights(recipe, job.changes(), data.channels).apply(recipe).base
    begun = time.monotonic()
    next(fit(of_epochs(config, 1), data, TrainState(config, data, device)))
    epoch_s = time.monotonic() - begun
    epochs = max(1, int(_SAFETY * clock.left / epoch_s))
    config = of_epochs(config, epochs)
    state, best = TrainState(config, data, device), None
    for report in fit(config, data, state):
        if report.improved:
            weights = state.evaluated_model.state_dict()
            best = {name: value.detach().clone() for name, value in weights.items()}
    assert best is not None
    model = model_spec(config, data).build()
    model.load_state_dict(best)
    found = assess(model, model_spec(config, data), data, "test", torch.device(device))
    how = f"{epochs} epochs, the best {state.best_epoch}"
    return Outcome(found.metrics["miou"], state.best_score, how)


def of_epochs(config: TrainConfig, epochs: int) -> TrainConfig:
    return decode_config(override(TrainConfig, config.tree(), {"epochs": epochs}))
