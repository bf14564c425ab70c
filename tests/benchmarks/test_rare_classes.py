"""The benchmark of rare classes: its set is what it says, and its table what was measured."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import rare_classes
from unetexp.training.config import decode_config


def test_the_set_has_a_tenth_of_a_percent_of_foreground_in_few_images(tmp_path):
    split = rare_classes.generated(tmp_path / "set")["train"]
    share = split.class_pixels[1] / split.class_pixels.sum()
    assert 0.0008 < share < 0.0013
    having = split.class_places.counts[:, 1] > 0
    assert having.mean() == 1 / rare_classes.WITH_OBJECT
    bright = [np.mean(split[index].image.numpy() > 135) for index in (0, 1)]
    assert min(bright) > 5 * share  # the distractors


@pytest.mark.parametrize("arm", rare_classes.ARMS)
def test_an_arm_changes_one_thing(arm):
    base = decode_config(rare_classes.BASE)
    changed = decode_config(rare_classes.BASE, rare_classes.ARMS[arm])
    parts = ("loss", "sampler", "augment", "encoder", "optimizer")
    others = sum(getattr(base, part) != getattr(changed, part) for part in parts)
    assert others == (arm != rare_classes.BASELINE)


def test_the_table_has_the_means_of_what_was_run(tmp_path, capsys, monkeypatch):
    path = tmp_path / "runs.jsonl"
    last = [{"val/iou/1": score, "cpu_s": 10.0} for score in (0.2, 0.4)]
    lines = [{"arm": rare_classes.BASELINE, "seed": 0, "history": [epoch]} for epoch in last]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["rare_classes.py", "table", "--out", str(path)])
    rare_classes.main()
    assert "| no change | 0.300 | 0.200, 0.400 | 10 |" in capsys.readouterr().out
