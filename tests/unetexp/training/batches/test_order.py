"""The order of training images: repeats of rare ones, ranks, and the same order again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.small_config import config_with
from unetexp.compute.distributed import ALONE
from unetexp.training.batches.order import Order
from unetexp.training.sampling import RareClasses

IMAGES, RARE = 40, 4


class SplitOf:
    """A split in which every tenth image has class 1."""

    def __init__(self):
        counts = np.full((IMAGES, 2), 100)
        counts[:, 1] = np.arange(IMAGES) % (IMAGES // RARE) == 0
        self.class_places = SimpleNamespace(counts=counts)

    def __len__(self):
        return IMAGES


def order_of(ranks=ALONE, **changes):
    return Order(SplitOf(), config_with(batch_size=8, **changes), ranks)


def samples(order, epochs):
    keys = []
    for order.epoch in epochs:
        keys += [key for batch in order for key in batch]
    return keys


def test_repeats_are_the_papers_factors():
    counts = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 3], [1, 0, 0]])
    repeats = RareClasses(threshold=0.5).repeats(counts)
    assert repeats.tolist() == pytest.approx([2**0.5, 1, 2**0.5, 1])
    assert RareClasses(threshold=0.5, power=1).repeats(counts).tolist() == [2, 1, 2, 1]
    assert RareClasses(power=0).repeats(counts).tolist() == [1] * 4


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_images_with_a_rare_class_come_as_often_as_their_factor_says(power):
    order = order_of(**{"sampler.kind": "rare_classes", "sampler.power": power})
    seen = np.bincount([key.sample for key in samples(order, range(300))], minlength=IMAGES)
    rare = np.arange(IMAGES) % (IMAGES // RARE) == 0
    assert seen[rare].mean() / seen[~rare].mean() == pytest.approx(5**power, rel=0.05)
    assert seen.min() > 0
    assert len(order) == len(order_of())  # an epoch costs the same


def test_a_sample_that_comes_again_has_another_view():
    order = order_of(**{"sampler.kind": "rare_classes", "sampler.power": 1, "min_steps": 20})
    keys = samples(order, [1])
    assert len(set(keys)) == len(keys)
    for sample in {key.sample for key in keys}:
        again = [key.again for key in keys if key.sample == sample]
        assert again == list(range(len(again)))


@given(seed=st.integers(0, 1000), epoch=st.integers(0, 1000))
def test_the_order_of_an_epoch_is_always_the_same(seed, epoch):
    """So that an epoch which was interrupted goes on to the bit."""
    changes = {"sampler.kind": "rare_classes", "seed": seed}
    later = samples(order_of(**changes), [epoch, epoch + 1])
    assert samples(order_of(**changes), [epoch + 1]) == later[len(later) // 2 :]


@pytest.mark.parametrize("kind", ["uniform", "rare_classes"])
def test_ranks_take_their_parts_of_one_order(kind):
    changes = {"sampler.kind": kind, "accumulation": 2}
    whole = list(order_of(**changes))
    parts = [list(order_of(SimpleNamespace(rank=rank, world=2), **changes)) for rank in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole
