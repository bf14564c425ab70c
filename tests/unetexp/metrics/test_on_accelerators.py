"""What cannot be counted, on a device for which the host does not wait: `compute` refuses it."""

from __future__ import annotations

import pytest
import torch

from unetexp.errors import DataError
from unetexp.metrics.per_image import ImageScores
from unetexp.metrics.segmentation import SegmentationMetrics

MODULES = ("data.label_tensors", "metrics.segmentation", "metrics.per_image")


@pytest.fixture(autouse=True)
def _accelerator(monkeypatch):
    """The CPU, taken for a device that must not be waited for."""
    for module in MODULES:
        monkeypatch.setattr(f"unetexp.{module}.on_host", lambda values: False)


def maps(n=4, k=3, side=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    prediction, target = torch.randint(0, k, (2, n, side, side), generator=rng)
    target[:, 0] = 255
    return prediction, target


@pytest.mark.parametrize("label", [3, 7, 254, -1, 1000])
def test_a_target_label_that_is_no_class_is_named(label):
    prediction, target = maps()
    target[2, 3, 4] = label
    metrics = SegmentationMetrics(3)
    metrics.update(prediction, target)
    with pytest.raises(DataError, match=rf"target: label {label} belongs to no class.*0 to 2"):
        metrics.compute()


@pytest.mark.parametrize("label", [3, 255, -1])
def test_a_predicted_label_that_is_no_class_is_named_unless_the_target_is_void(label):
    prediction, target = maps()
    metrics = SegmentationMetrics(3)
    metrics.update(prediction.where(target != 255, label), target)
    expected = metrics.compute()
    prediction[1, 2, 3] = label
    metrics.update(prediction, target)
    with pytest.raises(DataError, match=rf"prediction: label {label} "):
        metrics.compute()
    metrics.reset()
    metrics.update(*maps())
    assert metrics.compute() == expected


def test_several_labels_are_named_by_the_lowest_and_the_highest():
    prediction, target = maps()
    target[0, 1, 1], target[1, 1, 1], target[2, 1, 1] = 300, 9, -4
    metrics = SegmentationMetrics(3)
    for image in range(4):
        metrics.update(prediction[image : image + 1], target[image : image + 1])
    with pytest.raises(DataError, match=r"label -4, 300 "):
        metrics.compute()


def test_nan_logits_are_an_error_unless_the_target_is_void():
    _, target = maps()
    logits = torch.zeros(4, 3, 6, 6)
    logits[:, :, 0] = torch.nan
    metrics = SegmentationMetrics(3)
    metrics.update(logits, target)
    metrics.compute()
    logits[1, 2, 3, 3] = torch.nan
    metrics.update(logits, target)
    with pytest.raises(DataError, match="NaN"):
        metrics.compute()


def test_other_pixels_are_counted_as_on_the_cpu(monkeypatch):
    prediction, target = maps()
    there = SegmentationMetrics(3)
    counts = there.update(prediction, target)
    monkeypatch.undo()
    here = SegmentationMetrics(3)
    assert torch.equal(here.update(prediction, target), counts)
    assert here.compute() == there.compute()


@pytest.mark.filterwarnings("error")
def test_an_empty_batch_counts_nothing():
    metrics = SegmentationMetrics(3)
    metrics.update(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4, dtype=torch.long))
    assert metrics.compute()["absent"] == ["0", "1", "2"]


@pytest.mark.parametrize("unread", [0, 100, 2**26], ids=["each batch", "some", "at the end"])
def test_the_worst_images_do_not_depend_on_when_scores_are_read(unread, monkeypatch):
    monkeypatch.setattr("unetexp.metrics.per_image._UNREAD_BYTES", unread)
    there = ImageScores(SegmentationMetrics(3), keep=[1, 5], worst=3, keep_matrices=True)
    batches = [([2 * i, 2 * i + 1], *maps(n=2, seed=i)) for i in range(5)]
    for batch in batches:
        there.update(*batch)
    monkeypatch.undo()
    here = ImageScores(SegmentationMetrics(3), keep=[1, 5], worst=3, keep_matrices=True)
    for batch in batches:
        here.update(*batch)
    assert here.image_miou == there.image_miou and sorted(here.image_miou) == list(range(10))
    for name in ("predictions", "worst", "matrices"):
        ours, theirs = getattr(here, name), getattr(there, name)
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[index], theirs[index]) for index in ours)
    assert list(here.worst) == sorted(range(10), key=here.image_miou.__getitem__)[:3]
    assert all(label_map.dtype == torch.uint8 for label_map in here.worst.values())
