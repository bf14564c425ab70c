"""Configurations that earlier versions recorded."""

from __future__ import annotations

import pytest

from tests.support.small_config import config_with
from unetexp.training.config import decode_recorded

SINCE = ("batch_norm_images", "ema_epochs", "min_steps", "compile")


def as_recorded_before(**changes):
    """The tree that a version without averaging by epochs would have written."""
    tree = config_with(**changes).tree()
    schedule = {k: v for k, v in tree["schedule"].items() if k not in ("warmup", "hold")}
    if tree["schedule"]["kind"] == "cosine":
        schedule["warmup_epochs"] = 1.0
    optimizer = {k: v for k, v in tree["optimizer"].items() if k != "head_lr_scale"}
    rest = {name: value for name, value in tree.items() if name not in SINCE}
    return rest | {"schedule": schedule, "optimizer": optimizer}


@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant", "cosine_annealing"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_of_before_goes_on_as_it_was(schedule, optimizer):
    kinds = {"schedule.kind": schedule, "optimizer.kind": optimizer}
    config = decode_recorded(as_recorded_before(**kinds))
    assert config.batch_norm_images == 0 and config.averaging_decay(100) is None
    assert config.optimizer.head_lr_scale == 1
    assert config.steps_per_epoch(7) == 3
    if schedule == "cosine":
        assert config.schedule.lr(1.0, 2.5, 4) == pytest.approx(0.5)  # one epoch up, three down


def test_what_this_version_recorded_is_read_as_it_is():
    config = config_with()
    assert decode_recorded(config.tree()) == config
