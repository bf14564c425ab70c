"""Metrics: equal to scikit-learn's, however the images are batched."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score
from torchmetrics.functional.classification import multiclass_confusion_matrix

from unetexp.errors import ConfigError, DataError
from unetexp.metrics.segmentation import SegmentationMetrics

EXACT = 1e-12


def maps(seed=0, n=5, k=4, h=11, w=13, void=255, predicted=None, occurring=None):
    """A prediction and a target (n, h, w); a fifth of the target is void."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, occurring or k, (n, h, w))
    prediction = np.where(
        rng.random((n, h, w)) < 0.6, target, rng.integers(0, predicted or k, (n, h, w))
    )
    target[rng.random((n, h, w)) < 0.2] = void
    return torch.from_numpy(prediction), torch.from_numpy(target)


def counted(prediction, target, k=4, batch_size=None, **options):
    metrics = SegmentationMetrics(k, **options)
    size = batch_size or max(len(target), 1)
    for start in range(0, len(target), size):
        metrics.update(prediction[start : start + size], target[start : start + size])
    return metrics


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == b[name] or a[name] == pytest.approx(b[name], abs=EXACT, nan_ok=True)


def sklearn_metrics(prediction, target, k, void=255):
    """The same metrics, computed by scikit-learn on the flat list of valid pixels."""
    valid = target.numpy() != void
    y, p = target.numpy()[valid], prediction.numpy()[valid]
    occurs = np.union1d(y, p)
    labels = range(k)
    iou = jaccard_score(y, p, labels=labels, average=None, zero_division=0)
    dice = f1_score(y, p, labels=labels, average=None, zero_division=0)
    found = {
        "miou": jaccard_score(y, p, labels=occurs, average="macro"),
        "dice": f1_score(y, p, labels=occurs, average="macro"),
        "pixel_accuracy": accuracy_score(y, p),
        "absent": [str(c) for c in labels if c not in occurs],
    }
    for c in labels:
        found[f"iou/{c}"] = iou[c] if c in occurs else math.nan
        found[f"dice/{c}"] = dice[c] if c in occurs else math.nan
    images = []
    for image, truth in zip(prediction.numpy(), target.numpy(), strict=True):
        y, p = truth[truth != void], image[truth != void]
        if y.size:
            images.append(f1_score(y, p, labels=np.union1d(y, p), average="macro"))
    found["dice_per_image"] = np.mean(images)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 2},
        {"k": 21},
        {"occurring": 2, "predicted": 3},
        {"k": 7, "void": 0},
        {"k": 7, "void": -1},
        {"n": 1, "h": 1, "w": 40},
    ],
)
def test_equals_scikit_learn_whatever_the_batch_size(batch_size, options):
    prediction, target = maps(**options)
    k, void = options.get("k", 4), options.get("void", 255)
    metrics = counted(prediction, target, k, batch_size, ignore_index=void)
    same(metrics.compute(), sklearn_metrics(prediction, target, k, void))
    valid = target != void
    expected = confusion_matrix(target[valid], prediction[valid], labels=range(k))
    assert np.array_equal(metrics.confusion_matrix.numpy(), expected)


def test_the_confusion_matrix_is_torchmetrics_with_rows_for_the_target():
    prediction, target = maps()
    expected = multiclass_confusion_matrix(prediction, target, 4, ignore_index=255)
    confusion = counted(prediction, target).confusion_matrix
    assert torch.equal(confusion, expected) and confusion.dtype == torch.int64
    one = counted(torch.tensor([[[2]]]), torch.tensor([[[1]]])).confusion_matrix
    assert one.sum() == 1 and one[1, 2] == 1


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 6),
    n=st.integers(1, 5),
    side=st.integers(1, 5),
    split=st.integers(1, 5),
)
def test_neither_batching_nor_order_nor_merging_matters(seed, k, n, side, split):
    prediction, target = maps(seed, n, k, side, side)
    whole = counted(prediction, target, k).compute()
    same(counted(prediction, target, k, batch_size=split).compute(), whole)
    same(counted(prediction.flip(0), target.flip(0), k).compute(), whole)
    first = counted(prediction[:1], target[:1], k)
    first.merge(counted(prediction[1:], target[1:], k))
    same(first.compute(), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_logits_count_as_their_highest_class(dtype):
    prediction, target = maps()
    logits = (F.one_hot(prediction, 4).movedim(-1, 1) * 9 - 4).to(dtype).requires_grad_()
    same(counted(logits, target).compute(), counted(prediction, target).compute())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_any_integer_type_will_do(dtype):
    prediction, target = maps()
    got = counted(prediction.to(dtype), target.to(dtype)).compute()
    same(got, counted(prediction, target).compute())


def test_by_hand():
    target = torch.tensor([[[0, 0, 1, 255]]])
    prediction = torch.tensor([[[0, 1, 1, 0]]])
    found = counted(prediction, target, 3, class_names=["background", "nucleus", "rim"]).compute()
    nan = math.nan
    same(
        found,
        {
            "miou": 0.5,
            "dice": 2 / 3,
            "pixel_accuracy": 2 / 3,
            "dice_per_image": 2 / 3,
            "iou/background": 0.5,
            "iou/nucleus": 0.5,
            "iou/rim": nan,
            "dice/background": 2 / 3,
            "dice/nucleus": 2 / 3,
            "dice/rim": nan,
            "absent": ["rim"],
        },
    )
    assert all(isinstance(v, float) for name, v in found.items() if name != "absent")


def test_the_set_is_judged_as_a_whole_and_images_apart():
    target = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 1]], [[255, 255, 255, 255]]])
    prediction = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 0]], [[1, 0, 1, 0]]])
    found = counted(prediction, target, 2).compute()
    assert found["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2, abs=EXACT)
    assert found["dice_per_image"] == pytest.approx((1 + (6 / 7 + 0) / 2) / 2, abs=EXACT)


def test_a_class_only_predicted_counts_as_zero_not_as_absent():
    found = counted(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 3).compute()
    assert found["iou/1"] == 0 and found["miou"] == 0.25 and found["absent"] == ["2"]


@pytest.mark.parametrize("images", [None, 0, 2], ids=["no update", "empty batch", "all void"])
@pytest.mark.filterwarnings("error")
def test_nothing_to_count_gives_nan_and_no_warning(images):
    metrics = SegmentationMetrics(2)
    if images is not None:
        metrics.update(torch.zeros(images, 2, 3, 3), torch.full((images, 3, 3), 255))
    found = metrics.compute()
    assert found.pop("absent") == ["0", "1"]
    assert len(found) == 8 and all(math.isnan(value) for value in found.values())


def test_reset_forgets_and_compute_does_not():
    prediction, target = maps()
    metrics = counted(prediction, target)
    first = metrics.compute()
    same(metrics.compute(), first)
    metrics.confusion_matrix.zero_()
    same(metrics.compute(), first)
    metrics.reset()
    assert metrics.compute()["absent"] == ["0", "1", "2", "3"]
    metrics.update(prediction, target)
    same(metrics.compute(), first)


def test_counting_may_start_in_inference_mode_and_go_on_outside():
    prediction, target = maps()
    with torch.inference_mode():
        metrics = counted(prediction[:2], target[:2])
    metrics.update(prediction[2:], target[2:])
    same(metrics.compute(), counted(prediction, target).compute())


def test_survives_pickling():
    metrics = counted(*maps())
    same(pickle.loads(pickle.dumps(metrics)).compute(), metrics.compute())


def test_deterministic_mode_needs_no_more_memory_or_time():
    prediction, target = maps(n=1, k=21, h=512, w=512)
    torch.use_deterministic_algorithms(True)
    try:
        found = counted(prediction, target, 21).compute()
    finally:
        torch.use_deterministic_algorithms(False)
    same(found, counted(prediction, target, 21).compute())


@pytest.mark.parametrize("label", [4, 7, 254, -1])
def test_a_target_label_that_is_no_class_is_named_and_not_counted(label):
    prediction, target = maps()
    target[3, 2, 1] = label
    metrics = SegmentationMetrics(4)
    with pytest.raises(DataError, match=rf"target: label {label} .*0 to 3"):
        metrics.update(prediction, target)
    assert metrics.confusion_matrix.sum() == 0


def test_255_is_a_mistake_where_another_label_is_void():
    prediction, target = maps()
    with pytest.raises(DataError, match="label 255"):
        SegmentationMetrics(4, ignore_index=9).update(prediction, target)


@pytest.mark.parametrize("label", [4, 255, -1])
def test_a_predicted_label_that_is_no_class_is_named_unless_the_target_is_void(label):
    prediction, target = maps()
    expected = counted(prediction, target).compute()
    same(counted(prediction.where(target != 255, label), target).compute(), expected)
    with pytest.raises(DataError, match=rf"prediction: label {label} "):
        counted(prediction.where(target == 255, label), target)


def test_nan_logits_are_an_error_unless_the_target_is_void():
    prediction, target = maps()
    logits = F.one_hot(prediction, 4).movedim(-1, 1).float()
    void = (target == 255).unsqueeze(1)
    same(
        counted(logits.where(~void, math.nan), target).compute(),
        counted(prediction, target).compute(),
    )
    with pytest.raises(DataError, match="NaN"):
        counted(logits.where(void, math.nan), target)


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        (torch.zeros(2, 5, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 4, dtype=torch.long)),
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.long), torch.zeros(2, 4, 4, dtype=torch.long)),
        (torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(2, 4, 4, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.long)),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(prediction, target):
    with pytest.raises(DataError, match=r"expected .* got "):
        SegmentationMetrics(3).update(prediction, target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes: 0"),
        ({"num_classes": 3, "class_names": ["a", "b"]}, r"2 names \(a, b\) .* 3 classes"),
        ({"num_classes": 2, "class_names": ["a", "a"]}, "name of its own"),
    ],
)
def test_classes_must_be_named_one_by_one(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SegmentationMetrics(**arguments)


def test_metrics_of_other_classes_are_not_merged():
    with pytest.raises(ConfigError, match="merged"):
        SegmentationMetrics(2).merge(SegmentationMetrics(3))
