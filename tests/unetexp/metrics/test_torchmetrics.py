"""SegmentationMetrics as the torchmetrics.Metric that it is: ranks, collections, copies, states."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch
import torchmetrics

from tests.support.ranks import Pair
from unetexp.errors import ConfigError
from unetexp.metrics.segmentation import SegmentationMetrics

K = 3


def batches(count=5):
    """Predictions and targets (2, 5, 7) with void pixels, a different number of images each."""
    rng = torch.Generator().manual_seed(0)
    for number in range(count):
        shape = (1 + number % 3, 5, 7)
        target = torch.randint(0, K, shape, generator=rng)
        prediction = torch.randint(0, K, shape, generator=rng).where(target != 1, target)
        yield prediction, target.where(torch.rand(shape, generator=rng) < 0.8, 255)


def counted(some, **options):
    metrics = SegmentationMetrics(K, **options)
    for prediction, target in some:
        metrics.update(prediction, target)
    return metrics


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12, nan_ok=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    two = Pair(tmp_path_factory.mktemp("gloo") / "rendezvous")
    yield two
    two.close()


def of_this_rank(first, **options):
    """What a rank finds that counts the first `first` batches (rank 0), or all others."""
    rank = torch.distributed.get_rank()
    share = list(batches())[:first] if rank == 0 else list(batches())[first:]
    metrics = counted(share, **options)
    found = metrics.compute()
    own = metrics.confusion_matrix
    metrics.sync()
    together = metrics.confusion_matrix
    matrices = metrics.image_matrices if metrics.keep_matrices else None
    metrics.unsync()
    assert torch.equal(own, metrics.confusion_matrix)
    return found, together, matrices


@pytest.mark.parametrize("first", [2, 0], ids=["both count", "one counts"])
@pytest.mark.parametrize("keep_matrices", [False, True])
def test_two_ranks_find_what_one_process_does(pair, first, keep_matrices):
    whole = counted(batches(), keep_matrices=keep_matrices)
    for found, together, matrices in pair.both(of_this_rank_of(first, keep_matrices)):
        same(found, whole.compute())
        assert torch.equal(together, whole.confusion_matrix)
        if keep_matrices:
            assert torch.equal(matrices, whole.image_matrices)


def of_this_rank_of(first, keep_matrices):
    return _Work(first, keep_matrices)


class _Work:
    """A call that can be pickled."""

    __name__ = "of_this_rank"

    def __init__(self, first, keep_matrices):
        self.first, self.keep_matrices = first, keep_matrices

    def __call__(self):
        return of_this_rank(self.first, keep_matrices=self.keep_matrices)


def test_calling_it_counts_the_batch_and_gives_its_own_figures():
    metrics = SegmentationMetrics(K, keep_matrices=True)
    for batch in batches():
        same(metrics(*batch), counted([batch]).compute())
    whole = counted(batches(), keep_matrices=True)
    same(metrics.compute(), whole.compute())
    assert torch.equal(metrics.image_matrices, whole.image_matrices)


def test_in_a_collection():
    collection = torchmetrics.MetricCollection(
        {"ours": SegmentationMetrics(K), "again": SegmentationMetrics(K)}
    )
    for batch in batches():
        collection.update(*batch)
    found, expected = collection.compute(), counted(batches()).compute()
    assert found["ours_miou"] == found["again_miou"] == pytest.approx(expected["miou"])


@pytest.mark.parametrize(
    "copied", [torchmetrics.Metric.clone, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_counts_on_by_itself(copied):
    first, *others = batches()
    metrics = counted([first], keep_matrices=True)
    copy = copied(metrics)
    for batch in others:
        assert copy.update(*batch).shape == (len(batch[0]), K, K)
    same(copy.compute(), counted(batches()).compute())
    same(metrics.compute(), counted([first]).compute())


def test_states_are_saved_on_request():
    metrics = counted(batches(), keep_matrices=True)
    assert not metrics.state_dict()
    metrics.persistent(True)
    other = SegmentationMetrics(K, keep_matrices=True)
    other.persistent(True)
    other.load_state_dict(metrics.state_dict())
    same(other.compute(), metrics.compute())
    assert torch.equal(other.image_matrices, metrics.image_matrices)


@pytest.mark.parametrize("merge", [SegmentationMetrics.merge, SegmentationMetrics.merge_state])
def test_merging_adds_the_counts(merge):
    some = list(batches())
    metrics = counted(some[:2])
    merge(metrics, counted(some[2:]))
    same(metrics.compute(), counted(some).compute())


def test_merged_matrices_are_in_the_order_of_counting():
    some = list(batches())
    metrics = counted(some[:2], keep_matrices=True)
    metrics.merge(counted(some[2:], keep_matrices=True))
    assert torch.equal(metrics.image_matrices, counted(some, keep_matrices=True).image_matrices)


def test_matrices_are_kept_only_on_request():
    metrics = counted(batches(), keep_matrices=True)
    assert metrics.image_matrices.sum(dim=0).equal(metrics.confusion_matrix)
    assert metrics.image_matrices.dtype == torch.int64 and len(metrics.image_matrices) == 9
    metrics.reset()
    assert metrics.image_matrices.shape == (0, K, K)
    with pytest.raises(ConfigError, match="keep_matrices=True"):
        _ = counted(batches()).image_matrices
    with pytest.raises(ConfigError, match="merged"):
        metrics.merge(counted(batches()))


def test_without_matrices_memory_does_not_grow_with_the_images():
    metrics = counted(batches(40))
    assert all(isinstance(state, torch.Tensor) for state in metrics.metric_state.values())
    assert sum(state.numel() for state in metrics.metric_state.values()) < 2 * K * K + 10


def test_a_served_model_does_not_need_torchmetrics():
    command = "import sys, unetexp.inference.served_model; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert b"torchmetrics" not in done.stdout.split()
