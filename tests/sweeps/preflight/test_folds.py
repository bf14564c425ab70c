"""A trial of k folds costs about k times as much time and holds k models."""

from __future__ import annotations

import pytest
import torch

from sweeps.config.recipe import Recipe
from sweeps.execution.placement import Placement
from sweeps.preflight.disk_space import largest_sizes
from sweeps.preflight.estimate import estimate_sweep
from sweeps.preflight.step_cost import StepCost, measure_step_cost
from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Folder, open_dataset
from unetexp.data.folded import rounds

CPU = torch.device("cpu")
COST = StepCost(micro_batch=2, step_s=1.0, val_s=0.1, peak_bytes=2**30, device_bytes=None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_folder_dataset(tmp_path_factory.mktemp("data"), {"": 12}, size=(32, 40))
    return open_dataset(Folder(root=str(root), folds=3))


def test_the_estimate_counts_every_fold(data):
    recipe = Recipe(name="r", base=config_with(batch_norm_images=0), space={})
    placement = Placement(0, 1, 0, 1, 1, simulated=False)
    found = estimate_sweep(recipe, placement, data, COST)
    assert found.epoch_s == pytest.approx(3 * (4 * 1.0 + 4 * 0.1))  # 8 images in batches of 2
    one = estimate_sweep(recipe, placement, rounds(data)[0], COST)
    assert found.most_wall_s == pytest.approx(3 * one.most_wall_s)


def test_memory_and_disk_hold_all_models(data):
    config, first = config_with(), rounds(data)[0]
    one = measure_step_cost(config, first, CPU, 2, patience_s=1.0)
    three = measure_step_cost(config, first, CPU, 2, patience_s=1.0, models=3)
    weights = largest_sizes([config], first).model_bytes
    assert three.peak_bytes - one.peak_bytes > 4 * weights  # two more: moments, averages too
    assert (
        largest_sizes([config], data).running_bytes
        == 3 * largest_sizes([config], first).running_bytes
    )
