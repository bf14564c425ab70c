"""Calibration error and Brier score: torchmetrics', scikit-learn's, and void pixels."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from unetexp.errors import DataError
from unetexp.metrics import brier_score, expected_calibration_error
from unetexp.metrics.calibration import calibration_sums


def drawn(classes, seed=0):
    """Probabilities (K, 20, 24) and a truth with void pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(classes, 20, 24, generator=generator, dtype=torch.float64) * 2
    truth = torch.randint(classes, (20, 24), generator=generator)
    truth[:, :5] = 255
    return logits.softmax(dim=0), truth


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("bins", [5, 15])
def test_the_calibration_error_is_torchmetrics(classes, bins):
    shares, truth = drawn(classes)
    pixels, labels = shares[:, truth != 255].T, truth[truth != 255]
    expected = multiclass_calibration_error(pixels, labels, classes, n_bins=bins, norm="l1")
    found = expected_calibration_error(shares.numpy(), truth.numpy(), bins=bins)
    assert found == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_brier_score_is_scikit_learn_s(classes):
    shares, truth = drawn(classes)
    pixels, labels = shares[:, truth != 255].T.numpy(), truth[truth != 255].numpy()
    given = pixels[:, 1] if classes == 2 else pixels
    expected = brier_score_loss(labels, given, labels=list(range(classes)))
    assert brier_score(shares.numpy(), truth.numpy()) == pytest.approx(expected)


def test_sums_of_parts_and_of_images_add_up():
    shares, truth = (torch.stack(part) for part in zip(drawn(3, 1), drawn(3, 2), strict=True))
    whole = calibration_sums(shares, truth)
    parts = [calibration_sums(shares[..., rows, :], truth[:, rows]) for rows in ([0, 1], [2])]
    assert torch.allclose(parts[0] + parts[1], calibration_sums(shares[..., :3, :], truth[:, :3]))
    joined = whole.sum(dim=0)
    both = np.concatenate(list(shares.numpy()), axis=1), np.concatenate(list(truth.numpy()))
    expected = expected_calibration_error(*both)
    assert float(joined[:15].abs().sum() / joined[-1]) == pytest.approx(expected)


def test_sure_and_right_is_0_and_all_void_is_undefined():
    truth = np.array([[0, 1], [1, 255]])
    shares = np.stack([truth == 0, truth == 1]).astype(float)
    assert expected_calibration_error(shares, truth) == brier_score(shares, truth) == 0
    assert brier_score(1 - shares, np.array([[0, 1], [1, 255]])) == 1
    void = np.full((2, 2), 255)
    assert math.isnan(brier_score(shares, void))
    assert math.isnan(expected_calibration_error(shares, void))


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(DataError, match=r"\(2, 3, 3\)"):
        brier_score(np.zeros((2, 3, 3)), np.zeros((3, 4), int))
