"""Postprocessing that is chosen on validation: it helps on images that had no say, or is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from unetexp.data.labels import VOID
from unetexp.metrics.bootstrap import mean_iou
from unetexp.postprocessing.labels import labels_of, shares_of, thresholded
from unetexp.tuning.cached import CachedProbabilities
from unetexp.tuning.candidates import LIMITS, by_thresholds, confusion, inner_folds
from unetexp.tuning.folds import folds_of
from unetexp.tuning.temperature import fitted, pixels_of
from unetexp.tuning.tune import tune

NAMES = ("back", "cell")
SIDE = 24


def kept(images, folder, groups=None):
    """The images (logits, truth) as they are cached."""
    files = []
    for number, (logits, truth) in enumerate(images):
        pair = folder / f"{number}-l.npy", folder / f"{number}-t.npy"
        np.save(pair[0], logits.astype(np.float16))
        np.save(pair[1], truth.astype(np.uint8))
        files.append(pair)
    return CachedProbabilities(tuple(files), tuple(groups or map(str, range(len(files)))))


def calibrated(rng, count, *, sharp=1.0, bias=0.0, classes=2):
    """Images whose truth is drawn from the model's own probabilities.

    The model then says its logits times `sharp`, and `bias` more for the first class.
    """
    found = []
    for _ in range(count):
        rough = rng.normal(size=(classes, SIDE, SIDE)) * 2
        shares = softmax(rough, axis=0)
        draws = rng.random((SIDE, SIDE))
        truth = (draws[None] > shares.cumsum(axis=0)).sum(axis=0)
        said = np.log(shares) * sharp
        said[0] += bias
        found.append((said - np.log(np.exp(said).sum(axis=0)), truth))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_where_nothing_is_wrong_nothing_is_chosen(tmp_path, seed):
    images = kept(calibrated(np.random.default_rng(seed), 14), tmp_path)
    tuned = tune(images, NAMES, seed)
    assert tuned.settings.describe() == "none", tuned.steps
    assert tuned.verdict == "none: measured, and nothing helped"
    assert [step.kept for step in tuned.steps] == [False] * 3


@pytest.mark.parametrize("share", [0.15, 0.4, 0.5])
@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_on_noise_nothing_is_chosen(tmp_path, share, spread):
    """Probabilities that say nothing of the truth: pixels could only be traded between classes."""
    rng = np.random.default_rng(4)
    images = []
    for _ in range(14):
        logits = np.log(softmax(rng.normal(size=(2, SIDE, SIDE)) * spread, axis=0))
        images.append((logits, rng.random((SIDE, SIDE)) < share))
    tuned = tune(kept(images, tmp_path), NAMES)
    assert tuned.settings.describe() == "none"
    assert tuned.verdict == "none: its labels are no better than chance here"


def test_a_model_that_is_too_sure_gets_its_temperature(tmp_path):
    images = kept(calibrated(np.random.default_rng(0), 14, sharp=3.0), tmp_path)
    tuned = tune(images, NAMES)
    assert tuned.settings.temperature == pytest.approx(3.0, rel=0.1)
    before, after = tuned.calibration
    assert after < before / 3
    assert tuned.steps[0].kept and tuned.steps[0].gain.low > 0


def test_the_temperature_equals_that_of_torch(tmp_path):
    """Fitted with torch's LBFGS, as Guo et al. do."""
    images = kept(calibrated(np.random.default_rng(1), 5, sharp=2.0, classes=3), tmp_path)
    pixels = pixels_of(images)
    logits = torch.tensor(np.concatenate([p.logits for p in pixels], axis=1).T)
    truth = torch.tensor(np.concatenate([p.truth for p in pixels]))
    log_t = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_t.exp(), truth)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fitted(pixels) == pytest.approx(float(log_t.detach().exp()), rel=1e-3)


def test_a_threshold_that_helps_is_chosen_and_helps_on_unseen_images(tmp_path):
    """A model that says "background" too often: cells are found with less than a half."""
    rng = np.random.default_rng(2)
    (tmp_path / "seen").mkdir()
    tuned = tune(kept(calibrated(rng, 16, bias=2.5), tmp_path / "seen"), NAMES)
    assert tuned.settings.thresholds.keys() == {"cell"}
    assert tuned.settings.thresholds["cell"] < 0.4
    unseen = calibrated(rng, 8, bias=2.5)
    scores = []
    for settings in (tuned.settings, tuned.settings.model_copy(update={"thresholds": {}})):
        matrices = [
            confusion(labels_of(shares_of(logits), settings, NAMES), truth.astype(np.uint8), 2)
            for logits, truth in unseen
        ]
        scores.append(mean_iou(np.stack(matrices)))
    assert scores[0] > scores[1] + 0.02


def test_specks_are_removed_where_real_objects_are_large(tmp_path):
    rng = np.random.default_rng(3)
    images = []
    for _ in range(16):
        truth = np.zeros((SIDE, SIDE), np.uint8)
        top, left = rng.integers(2, 12, size=2)
        truth[top : top + 9, left : left + 9] = 1
        said = truth.copy()
        for row, column in rng.integers(0, SIDE, size=(14, 2)):
            said[row, column] = 1
        logits = np.where(np.arange(2)[:, None, None] == said, -0.05, -3.0)
        images.append((logits, truth))
    tuned = tune(kept(images, tmp_path), NAMES)
    assert tuned.settings.minimum_px.get("cell", 0) >= 4
    assert "cell from" in tuned.verdict


def test_too_few_images_are_said(tmp_path):
    images = kept(calibrated(np.random.default_rng(0), 12), tmp_path, groups=["a", "b", "c"] * 4)
    tuned = tune(images, NAMES)
    assert tuned.verdict.startswith("none: 3 groups of images are too few")


def test_folds_keep_groups_together():
    groups = ["a", "b", "a", "c", "d", "e", "b", "f"]
    folds = folds_of(groups, 3)
    assert sorted(np.concatenate(folds)) == list(range(8))
    of = [{groups[index] for index in fold} for fold in folds]
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])


def test_the_matrices_at_each_limit_are_those_of_the_labels(tmp_path):
    logits, truth = calibrated(np.random.default_rng(5), 1, classes=4)[0]
    truth[:3] = VOID
    images = kept([(logits, truth)], tmp_path)
    found = by_thresholds(images, 1.3, 4)
    assert len(found) == 3 * len(LIMITS)
    shares = shares_of(images[0].logits, 1.3)
    for (label, limit), matrices in found.items():
        labels = thresholded(shares, {label: limit})
        assert (matrices[0] == confusion(labels, images[0].truth, 4)).all()


def test_inner_folds_keep_groups_together():
    units = np.array([0, 1, 0, 2, 3, 1, 4, 5])
    places = np.array([0, 1, 2, 3, 5, 6, 7])
    parts = inner_folds(places, units)
    assert sorted(np.concatenate(parts)) == sorted(places)
    of = [set(units[part]) for part in parts]
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])


def test_images_of_a_group_do_not_count_as_independent(tmp_path):
    """The same images, each eight times over, are as uncertain as they are once."""
    images = calibrated(np.random.default_rng(6), 12, sharp=1.2)
    (tmp_path / "once").mkdir()
    (tmp_path / "often").mkdir()
    names = [f"{number:02}" for number in range(12)]
    once = tune(kept(images, tmp_path / "once", names), NAMES)
    often = tune(kept(images * 8, tmp_path / "often", names * 8), NAMES)
    for single, many in zip(once.steps, often.steps, strict=True):
        assert many.gain.low == pytest.approx(single.gain.low, abs=1e-6)
        assert many.kept == single.kept
