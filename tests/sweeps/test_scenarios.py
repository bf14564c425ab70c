"""The scenarios' recipes, each on generated samples of the right form, through a real sweep."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.data_sources import save_nifti, volume_pair, write_cityscapes
from tests.support.sweep_command import Place, run_here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = [
    *("--gpus", 0, "--trials", 1, "--epochs", 1, "--max-concurrent", 1, "--cpus-per-trial", 1),
    *("--set", "encoder.name=resnet18", "--set", "encoder.weights=none", "--skip-preflight"),
    *("--set", "augment.crop_px=32", "--set", "batch_size=2"),
]


def lung_ct(root):
    """Volumes in Hounsfield units with five labels, as nnU-Net names the files."""
    rng = np.random.default_rng(0)
    for number in range(5):
        scan, label = volume_pair(rng, (40, 44, 6), classes=5)
        label[0, :5] = np.arange(5)[:, np.newaxis]
        save_nifti(root / f"imagesTr/case_{number:02d}_0000.nii.gz", scan)
        save_nifti(root / f"labelsTr/case_{number:02d}.nii.gz", label)
    return root


def driving(root):
    """Cityscapes' folders and label ids."""
    return write_cityscapes(root, {"train": 4, "val": 2}, (64, 128))


def inspection(root):
    """Grey surfaces of which every second has a defect of a few pixels."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(10):
        image, mask = rng.integers(90, 110, (96, 96), np.uint8), np.zeros((96, 96), np.uint8)
        if number % 2:
            y, x = rng.integers(10, 80, 2)
            image[y : y + 3, x : x + 4], mask[y : y + 3, x : x + 4] = 220, 255
        Image.fromarray(image).save(root / "images" / f"part_{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"part_{number}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("scenarios"))


@pytest.mark.parametrize(
    ("scenario", "classes"),
    [(lung_ct, 5), (driving, 8), (inspection, 2)],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_a_scenario_runs(place, tmp_path, scenario, classes):
    recipe = scenario.__name__
    flags = ["--data", scenario(tmp_path / recipe), *place.flags[2:], "--name", recipe, *SMALL]
    run_here(recipe, *flags)
    _, [trial] = place.runs(recipe)
    assert trial.data.tags["stop_reason"] == "completed"
    scores = [name for name in trial.data.metrics if name.startswith("val/iou/")]
    assert 2 <= len(scores) <= classes
