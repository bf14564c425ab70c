"""Losses: one contract for every kind, and parity with formulas in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from unetexp.component import decode, kinds_of
from unetexp.data.labels import VOID
from unetexp.errors import ConfigError, DataError
from unetexp.training.losses import Loss, create_loss

KINDS = kinds_of(Loss)
WEIGHTED = ["cross_entropy", "dice_ce", "focal"]
VARIANTS = [(kind, {}) for kind in KINDS] + [
    *((kind, {"class_weights": "balanced"}) for kind in WEIGHTED),
    *((kind, {"class_weights": [0.5, 1, 2, 3]}) for kind in WEIGHTED),
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("cross_entropy", {"label_smoothing": 0.1, "class_weights": "balanced"}),
    ("focal", {"gamma": 0.5}),
    ("focal", {"gamma": 0.0}),
    ("tversky", {"alpha": 0.0, "beta": 1.0}),
]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_variant = pytest.mark.parametrize(
    ("kind", "fields"), VARIANTS, ids=[f"{kind}-{fields}" for kind, fields in VARIANTS]
)


def batch(seed=0, n=2, k=4, h=9, w=7, void=True, classes=None):
    """Logits (n, k, h, w) float64 and a mask (n, h, w) of the first `classes` classes."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, h, w, generator=rng, dtype=torch.float64) * 3
    mask = torch.randint(0, classes or k, (n, h, w), generator=rng)
    if void:
        mask[torch.rand(n, h, w, generator=rng) < 0.2] = VOID
    return logits, mask


def value_and_gradient(loss, logits: Tensor, mask: Tensor):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, mask)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


# The contract of the family ---------------------------------------------------------------------


def test_the_family_is_complete():
    assert KINDS == ["cross_entropy", "bce_dice", "dice", "dice_ce", "focal", "tversky", "lovasz"]


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_is_a_finite_float32_scalar_with_a_gradient(kind, fields, dtype):
    logits, mask = batch()
    value, gradient = value_and_gradient(create_loss(kind, **fields), logits.to(dtype), mask)
    assert value.shape == () and value.dtype == torch.float32 and value > 0
    assert gradient.dtype == dtype and gradient.isfinite().all() and gradient.any()


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(kind, fields, dtype):
    logits, mask = batch()
    loss = create_loss(kind, **fields)
    outside = value_and_gradient(loss, logits.to(dtype), mask)
    with torch.autocast("cpu", torch.bfloat16):
        inside = value_and_gradient(loss, logits.to(dtype), mask)
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))


@every_variant
@pytest.mark.parametrize("rubbish", [0.0, 1e4, float("inf"), float("nan")])
def test_void_pixels_have_no_influence_and_no_gradient(kind, fields, rubbish):
    logits, mask = batch()
    loss = create_loss(kind, **fields)
    void = (mask == VOID).unsqueeze(1)
    value, gradient = value_and_gradient(loss, logits, mask)
    changed, changed_gradient = value_and_gradient(loss, logits.where(~void, rubbish), mask)
    assert torch.equal(value, changed) and torch.equal(gradient, changed_gradient)
    assert not gradient.masked_select(void).any()


@every_variant
def test_void_pixels_are_not_counted(kind, fields):
    logits, mask = batch(void=False)
    loss = create_loss(kind, **fields)
    padded = F.pad(mask, (2, 3, 1, 4), value=VOID)
    frame = F.pad(logits, (2, 3, 1, 4), value=1.5)
    torch.testing.assert_close(loss(frame, padded), loss(logits, mask))


@every_kind
def test_void_is_no_class_even_where_there_are_more_than_255(kind):
    logits, mask = batch(k=257, classes=5)
    loss = create_loss(kind)
    void = (mask == VOID).unsqueeze(1)
    without = loss(logits[:, :255].where(~void, 0), mask)
    logits[:, 255:] = -1e4
    torch.testing.assert_close(loss(logits, mask), without)
    assert not loss(logits, torch.full_like(mask, VOID))


@every_kind
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_a_class_that_occurs_nowhere_is_not_in_the_mean(kind, class_weights):
    logits, mask = batch()
    loss = create_loss(kind, **({"class_weights": class_weights} if kind in WEIGHTED else {}))
    wider = torch.cat([logits, torch.full_like(logits[:, :1], -1e4)], dim=1)
    torch.testing.assert_close(loss(wider, mask), loss(logits, mask))


@every_variant
def test_the_whole_batch_is_one_set_of_pixels(kind, fields):
    logits, mask = batch(n=3)
    loss = create_loss(kind, **fields)
    as_one_image = loss(torch.cat(list(logits), dim=1)[None], torch.cat(list(mask), dim=0)[None])
    torch.testing.assert_close(as_one_image, loss(logits, mask))


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("label", [0, 3, VOID, None], ids=["first", "last", "all void", "mixed"])
def test_values_and_gradients_stay_finite(kind, fields, dtype, scale, label):
    logits, mask = batch()
    mask = mask if label is None else torch.full_like(mask, label)
    extreme = (logits.sign() * scale).to(dtype)
    value, gradient = value_and_gradient(create_loss(kind, **fields), extreme, mask)
    assert value.isfinite() and gradient.isfinite().all()
    if label == VOID:
        assert value == 0 and not gradient.any()


@every_variant
def test_one_certain_class_everywhere_stays_finite(kind, fields):
    for label in (0, 1):
        logits = torch.zeros(1, 4, 5, 5)
        logits[:, 0] = 1e4
        mask = torch.full((1, 5, 5), label)
        value, gradient = value_and_gradient(create_loss(kind, **fields), logits, mask)
        assert value.isfinite() and gradient.isfinite().all()


@every_kind
def test_the_truth_costs_nothing_and_its_opposite_much(kind):
    _, mask = batch(k=3)
    truth = F.one_hot(mask.where(mask != VOID, 0), 3).movedim(-1, 1) * 60.0 - 30
    loss = create_loss(kind)
    assert loss(truth, mask).item() == pytest.approx(0, abs=1e-6)
    assert loss(-truth, mask) > 0.5


@every_variant
def test_descent_reaches_the_truth(kind, fields):
    logits, mask = batch()
    loss = create_loss(kind, **fields)
    logits = logits.float().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, mask).backward()
        optimizer.step()
    agree = (logits.argmax(1) == mask) | (mask == VOID)
    assert agree.float().mean() > 0.95


@every_kind
def test_is_deterministic_and_leaves_its_arguments_alone(kind):
    logits, mask = batch()
    before = logits.clone(), mask.clone()
    loss = create_loss(kind)
    first, second = (value_and_gradient(loss, logits, mask) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(logits, before[0]) and torch.equal(mask, before[1])


@every_kind
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_any_integer_mask_will_do(kind, dtype):
    logits, mask = batch()
    loss = create_loss(kind)
    assert torch.equal(loss(logits, mask.to(dtype)), loss(logits, mask))


@every_kind
def test_memory_format_makes_no_difference(kind):
    logits, mask = batch()
    loss = create_loss(kind)
    last = logits.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(last, mask), loss(logits, mask))


@every_kind
@pytest.mark.parametrize("label", [4, 254, -1, 1000])
def test_a_label_that_is_no_class_is_named(kind, label):
    logits, mask = batch()
    mask[1, 2, 3] = label
    with pytest.raises(DataError, match=rf"label {label} .*0 to 3"):
        create_loss(kind)(logits, mask)


@pytest.fixture
def accelerator(monkeypatch):
    """The CPU, taken for a device that must not be waited for."""
    for module in ("data.label_tensors", "training.losses.masked_batch", "training.losses.lovasz"):
        monkeypatch.setattr(f"unetexp.{module}.on_host", lambda values: False)


@every_kind
@pytest.mark.parametrize("label", [4, 254, -1, 1000])
def test_on_an_accelerator_a_label_that_is_no_class_makes_the_loss_nan(kind, label, accelerator):
    logits, mask = batch()
    mask[1, 2, 3] = label
    assert create_loss(kind)(logits, mask).isnan()


@every_variant
@pytest.mark.parametrize("masks", ["some void", "two of four classes", "all void"])
def test_an_accelerator_finds_the_same(kind, fields, masks, request):
    logits, mask = batch(classes=2 if masks == "two of four classes" else None)
    mask = torch.full_like(mask, VOID) if masks == "all void" else mask
    loss = create_loss(kind, **fields)
    expected = value_and_gradient(loss, logits, mask)
    request.getfixturevalue("accelerator")
    found = value_and_gradient(loss, logits, mask)
    torch.testing.assert_close(found, expected)


@every_kind
@pytest.mark.parametrize(
    ("logits", "mask"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 5, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4)),
        (torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.long), torch.zeros(2, 4, 4, dtype=torch.long)),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(kind, logits, mask):
    with pytest.raises(DataError, match=r"expected .* got "):
        create_loss(kind)(logits, mask)


@every_variant
def test_survives_the_way_through_json(kind, fields):
    loss = create_loss(kind, **fields)
    assert decode(Loss, json.loads(json.dumps(loss.tree()))) == loss
    assert loss.kind == kind


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    scale=st.sampled_from([1.0, 100.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_any_batch_has_a_finite_loss_that_is_not_negative(kind, seed, shape, scale, dtype):
    n, k, h, w = shape
    logits, mask = batch(seed, n, k, h, w)
    extreme = (logits * scale / 10).clamp(-6e4, 6e4).to(dtype)
    value, gradient = value_and_gradient(create_loss(kind), extreme, mask)
    assert value.isfinite() and value >= -1e-6 and gradient.isfinite().all()


# Parity with independent references -------------------------------------------------------------


def chosen(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The valid pixels' logits (P, K) and labels (P,)."""
    valid = mask != VOID
    return logits.movedim(1, -1)[valid], mask[valid]


def dice_formula(x: Tensor, y: Tensor) -> Tensor:
    p = x.softmax(1)
    per_class = [
        1 - 2 * p[y == c, c].sum() / (p[:, c].sum() + (y == c).sum()) for c in y.unique().tolist()
    ]
    return torch.stack(per_class).mean()


def bce_formula(x: Tensor, y: Tensor) -> Tensor:
    means = []
    for c in y.unique().tolist():
        p = x[:, c].sigmoid()
        means.append(-torch.where(y == c, p, 1 - p).log().mean())
    return torch.stack(means).mean()


def tversky_formula(x: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    p = x.softmax(1)
    per_class = []
    for c in y.unique().tolist():
        hit, wrong, missed = p[y == c, c].sum(), p[y != c, c].sum(), (1 - p)[y == c, c].sum()
        per_class.append(1 - hit / (hit + alpha * wrong + beta * missed))
    return torch.stack(per_class).mean()


def focal_formula(x: Tensor, y: Tensor, gamma: float) -> Tensor:
    p = x.softmax(1).gather(1, y[:, None])
    return ((1 - p) ** gamma * -p.log()).mean()


def lovasz_formula(x: Tensor, y: Tensor) -> Tensor:
    """As the authors publish it (lovasz_softmax_flat, classes present), line by line."""
    losses = []
    for c in y.unique().tolist():
        truth = (y == c).to(x.dtype)
        errors, order = (truth - x.softmax(1)[:, c]).abs().sort(descending=True)
        truth = truth[order]
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1 - truth).cumsum(0)
        jaccard = 1 - intersection / union
        jaccard[1:] = jaccard[1:] - jaccard[:-1]
        losses.append(torch.dot(errors, jaccard))
    return torch.stack(losses).mean()


FORMULAS = [
    ("cross_entropy", {}, F.cross_entropy),
    (
        "cross_entropy",
        {"label_smoothing": 0.2},
        lambda x, y: F.cross_entropy(x, y, label_smoothing=0.2),
    ),
    ("dice", {}, dice_formula),
    ("dice_ce", {}, lambda x, y: F.cross_entropy(x, y) + dice_formula(x, y)),
    ("bce_dice", {}, lambda x, y: bce_formula(x, y) + dice_formula(x, y)),
    ("focal", {"gamma": 2.0}, lambda x, y: focal_formula(x, y, 2.0)),
    ("focal", {"gamma": 0.5}, lambda x, y: focal_formula(x, y, 0.5)),
    ("focal", {"gamma": 0.0}, F.cross_entropy),
    ("tversky", {"alpha": 0.2, "beta": 0.9}, lambda x, y: tversky_formula(x, y, 0.2, 0.9)),
    ("tversky", {"alpha": 0.5, "beta": 0.5}, dice_formula),
    ("lovasz", {}, lovasz_formula),
]


@pytest.mark.parametrize(("kind", "fields", "formula"), FORMULAS)
@pytest.mark.parametrize("classes", [4, 2], ids=["all present", "two of four"])
def test_value_and_gradient_equal_the_formula_in_float64(kind, fields, formula, classes):
    logits, mask = batch(seed=3, n=2, h=16, w=16, classes=classes)
    value, gradient = value_and_gradient(create_loss(kind, **fields), logits, mask)
    expected, expected_gradient = value_and_gradient(
        lambda x, m: formula(*chosen(x, m)), logits, mask
    )
    torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_of_two_classes_is_torchvisions_sigmoid_focal_loss(gamma):
    logits, mask = batch(k=2)
    x, y = chosen(logits, mask)
    expected = sigmoid_focal_loss(x[:, 1] - x[:, 0], y.double(), alpha=-1, gamma=gamma)
    value = create_loss("focal", gamma=gamma)(logits, mask)
    assert value.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_lovasz_of_a_hard_prediction_is_one_minus_the_mean_iou():
    logits, mask = batch(k=3, void=False)
    hard = F.one_hot(logits.argmax(1), 3).movedim(-1, 1) * 200.0
    ious = [
        ((hard.argmax(1) == c) & (mask == c)).sum() / ((hard.argmax(1) == c) | (mask == c)).sum()
        for c in range(3)
    ]
    expected = 1 - torch.stack(ious).mean()
    torch.testing.assert_close(create_loss("lovasz")(hard, mask), expected)


# Class weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", ["balanced", [0.5, 2.0, 1.0, 3.0]])
def test_weighted_cross_entropy_is_torchs(smoothing, class_weights):
    logits, mask = batch()
    x, y = chosen(logits, mask)
    weights = class_weights
    if weights == "balanced":
        weights = compute_class_weight("balanced", classes=np.arange(4), y=y.numpy())
    expected = F.cross_entropy(x, y, torch.as_tensor(weights).double(), label_smoothing=smoothing)
    loss = create_loss("cross_entropy", class_weights=class_weights, label_smoothing=smoothing)
    assert loss(logits, mask).item() == pytest.approx(expected.item(), rel=1e-6)


def test_weighted_focal_is_the_weighted_mean():
    logits, mask = batch()
    x, y = chosen(logits, mask)
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    p = x.softmax(1).gather(1, y[:, None]).squeeze(1)
    expected = (weights[y] * (1 - p) ** 3 * -p.log()).sum() / weights[y].sum()
    loss = create_loss("focal", gamma=3, class_weights=weights.tolist())
    assert loss(logits, mask).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_balanced_weights_come_from_the_training_set_once_it_is_counted(kind):
    logits, mask = batch()
    counts = np.array([800, 150, 50, 0])
    loss = create_loss(kind, class_weights="balanced").with_class_counts(counts)
    expected = (1000 / (3 * 800), 1000 / (3 * 150), 1000 / (3 * 50), 1.0)
    assert loss.class_weights == pytest.approx(expected)
    assert torch.equal(loss(logits, mask), create_loss(kind, class_weights=expected)(logits, mask))


@every_kind
def test_counts_change_only_what_is_balanced(kind):
    loss = create_loss(kind)
    assert loss.with_class_counts([5, 5]) is loss


@pytest.mark.parametrize("kind", WEIGHTED)
def test_a_weight_list_of_the_wrong_length_is_refused_before_and_in_training(kind):
    logits, mask = batch()
    loss = create_loss(kind, class_weights=[1.0, 2.0])
    for use in (lambda: loss(logits, mask), lambda: loss.with_class_counts([1, 2, 3, 4])):
        with pytest.raises(ConfigError, match=r"2 weights .* 4 classes"):
            use()


# What a user may get wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "focl"}, r"loss\.kind: 'focl' .*Did you mean 'focal'\? Choices: cross_entropy"),
        ({"kind": "focal", "gama": 2}, r"loss\.gama: .*Did you mean 'gamma'"),
        ({"kind": "dice", "gamma": 2}, r"loss\.gamma: there is no such setting"),
        ({"kind": "focal", "gamma": -1}, r"loss\.gamma: -1 "),
        ({"kind": "focal", "gamma": float("nan")}, r"loss\.gamma: nan "),
        ({"kind": "cross_entropy", "label_smoothing": 1.0}, r"loss\.label_smoothing: 1\.0 "),
        ({"kind": "tversky", "beta": 0}, r"loss\.beta: 0 "),
        ({"kind": "focal", "class_weights": "balancd"}, r"^loss\.class_weights: .*'balanced'\?.*$"),
        ({"kind": "focal", "class_weights": [1, 0]}, r"^loss\.class_weights\.1: 0 .*$"),
        ({"kind": "focal", "class_weights": 3}, r"^loss\.class_weights: 3 .*$"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        create_loss(**fields)
