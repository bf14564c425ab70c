"""Class weights by rule against their formulas in numpy, and with void pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from unetexp.data import Folder, open_dataset
from unetexp.data.labels import VOID
from unetexp.errors import ConfigError
from unetexp.training.losses import create_loss, loss_for

WEIGHTED = ["cross_entropy", "dice_ce", "focal"]


def balanced(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)


def median_frequency(counts):
    shares = counts / counts.sum()
    return np.median(shares) / shares


def effective_number(counts, beta=0.999999):
    weights = (1 - beta) / (1 - np.power(beta, counts.astype(np.float64)))
    return weights / weights.sum() * len(counts)


RULES = {
    "balanced": balanced,
    "median_frequency": median_frequency,
    "effective_number": effective_number,
}


@pytest.mark.parametrize("rule", RULES)
@given(counts=st.lists(st.integers(1, 3000), min_size=1, max_size=7).map(np.array))
def test_weights_of_the_training_split_are_the_formulas(rule, counts):
    loss = create_loss("cross_entropy", class_weights=rule).with_class_counts(counts)
    np.testing.assert_allclose(loss.class_weights, RULES[rule](counts), rtol=1e-6)


def test_beta_is_that_of_the_effective_number():
    counts = np.array([50, 20_000])
    loss = create_loss("focal", class_weights="effective_number", class_weights_beta=0.99)
    expected = effective_number(counts, 0.99)
    np.testing.assert_allclose(loss.with_class_counts(counts).class_weights, expected, rtol=1e-6)


def test_many_pixels_lose_no_digits():
    counts = np.array([10**9, 10**5])
    loss = create_loss("focal", class_weights="effective_number").with_class_counts(counts)
    np.testing.assert_allclose(loss.class_weights, effective_number(counts), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_class_that_no_image_has_weighs_one_and_changes_no_other(rule):
    loss = create_loss("cross_entropy", class_weights=rule)
    with_it = loss.with_class_counts([700, 0, 20, 3]).class_weights
    assert with_it[1] == 1
    others = loss.with_class_counts([700, 20, 3]).class_weights
    assert [with_it[0], *with_it[2:]] == pytest.approx(others)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", WEIGHTED)
def test_without_counts_they_are_the_batchs_and_void_is_left_out(kind, rule):
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 3, 6, 7), torch.zeros(2, 6, 7, dtype=torch.int64)
    mask[0, :3], mask[1, 0, :2], mask[1, 3] = 1, 2, VOID  # classes 0 and 1; 0 and 2
    loss = create_loss(kind, class_weights=rule)
    counts = [int((mask == label).sum()) for label in range(3)]
    counted = loss.with_class_counts(counts, [42 + 35, 42, 35])
    torch.testing.assert_close(loss(logits, mask), counted(logits, mask))


def test_median_frequency_is_taken_over_the_images_that_have_the_class(tmp_path):
    """Eigen and Fergus divide by the pixels of those images, here without void ones."""
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 0, 0, 1, VOID], (20, 30 + 2 * index)) for index in range(5)]
    masks[2][:3, :4] = 2
    for split, chosen in (("train", masks), ("val", masks[2:3])):
        for folder in ("images", "masks"):
            (tmp_path / split / folder).mkdir(parents=True)
            for number, mask in enumerate(chosen):
                picture = Image.fromarray(mask.astype(np.uint8))
                picture.save(tmp_path / split / folder / f"{number}.png")
    data = open_dataset(Folder(root=str(tmp_path)))
    shares = []
    for label in range(3):
        having = [mask for mask in masks if (mask == label).any()]
        own = sum((mask == label).sum() for mask in having)
        shares.append(own / sum((mask != VOID).sum() for mask in having))
    expected = np.median(shares) / np.array(shares)
    loss = loss_for(create_loss("dice_ce", class_weights="median_frequency"), data)
    np.testing.assert_allclose(loss.class_weights, expected, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_of_void_alone_has_the_loss_zero(rule):
    mask = torch.full((1, 4, 4), VOID)
    assert create_loss("cross_entropy", class_weights=rule)(torch.randn(1, 2, 4, 4), mask) == 0


def test_a_wrong_name_lists_the_rules():
    with pytest.raises(ConfigError, match="median_frequency, effective_number"):
        create_loss("focal", class_weights="median")
