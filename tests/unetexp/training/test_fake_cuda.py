"""The train step and the validation step on CUDA, without a GPU: the host never waits in them."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from tests.support.fake_cuda import CUDA, HostWaitsError, NoWaiting, fake_accelerator, fake_cuda
from unetexp.component import kinds_of
from unetexp.data.decoded.sample import Sample
from unetexp.metrics.per_image import ImageScores
from unetexp.metrics.segmentation import SegmentationMetrics
from unetexp.models.decoders import DecoderKind, Upsampling
from unetexp.models.encoders import FreezeLevel
from unetexp.models.weights.resolution import input_normalization
from unetexp.training.averaging import update_batch_norm
from unetexp.training.batches.train_batches import RawBatch, augmented
from unetexp.training.config import decode_config
from unetexp.training.loop import train_epoch
from unetexp.training.losses import Loss, create_loss, loss_for
from unetexp.training.state import TrainState
from unetexp.training.validation import evaluate

KINDS = kinds_of(Loss)
WEIGHTED = ["cross_entropy", "dice_ce", "focal"]
CLASSES = 3
WEIGHTS = {  # class weights, and whether the training set's counts are known
    "none": ("none", False),
    "of each batch": ("balanced", False),
    "of the training set": ("balanced", True),
    "by median frequency": ("median_frequency", False),
    "by effective number": ("effective_number", False),
    "a list": ([0.5, 1.0, 2.0], False),
}


class ReachedError(Exception):
    """The end of what is tested, before the host reads what the device has computed."""


def every_loss():
    for kind in KINDS:
        for weights in WEIGHTS if kind in WEIGHTED else ["none"]:
            yield pytest.param(kind, weights, id=f"{kind}, weights {weights}")


def loss_of(kind, weights):
    given, counted = WEIGHTS[weights]
    fields = {"class_weights": given} if kind in WEIGHTED else {}
    loss = create_loss(kind, **fields)
    return loss.with_class_counts(np.array([70, 30, 0])) if counted else loss


def logits_and_mask(classes=CLASSES, side=8, dtype=torch.float32, device=CUDA):
    logits = torch.zeros(2, classes, side, side, device=device, dtype=dtype, requires_grad=True)
    return logits, torch.zeros(2, side, side, device=device, dtype=torch.int64)


# The guard itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.cpu(),
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: torch.tensor(1.0, device=x.device),
        lambda x: x.copy_(torch.zeros(2)),
        lambda x: x[[0, 1]],
    ],
)
def test_a_copy_that_waits_is_seen(wait):
    with fake_cuda(), NoWaiting(), pytest.raises(HostWaitsError):
        wait(torch.zeros(2, device=CUDA))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.bincount(x.long(), minlength=3),
    ],
)
def test_a_value_that_is_read_is_seen(wait):
    with fake_cuda(), pytest.raises(Exception, match="aten"):
        wait(torch.zeros(2, device=CUDA))


# Losses and metrics ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "weights"), every_loss())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_loss_waits(kind, weights, dtype):
    with fake_cuda(), NoWaiting():
        logits, mask = logits_and_mask(dtype=dtype)
        value = loss_of(kind, weights)(logits, mask)
        torch.autograd.backward(value)
        assert (value.device, value.dtype) == (CUDA, torch.float32)
        assert logits.grad.device == CUDA


@pytest.mark.parametrize(("kind", "weights"), every_loss())
def test_no_derivative_of_a_loss_waits(kind, weights):
    with fake_accelerator():
        logits, mask = logits_and_mask(device="cpu")
        value = loss_of(kind, weights)(logits, mask)
        (gradient,) = torch.autograd.grad(value, logits)
        assert gradient.shape == logits.shape


@pytest.mark.parametrize("keep_matrices", [False, True])
@pytest.mark.parametrize("classes", [1, 3, 150, 257])
def test_counting_does_not_wait(classes, keep_matrices):
    with fake_cuda(), NoWaiting():
        metrics = SegmentationMetrics(classes, keep_matrices=keep_matrices)
        logits, mask = logits_and_mask(classes)
        for prediction in (logits, logits.argmax(dim=1), logits.argmax(dim=1).to(torch.uint8)):
            counts = metrics.update(prediction, mask)
            assert counts.device == CUDA and counts.shape == (2, classes, classes)


def test_choosing_the_worst_images_does_not_wait():
    with fake_cuda(), NoWaiting():
        metrics = SegmentationMetrics(CLASSES)
        scores = ImageScores(metrics, keep=[1], worst=2, keep_matrices=True)
        for start in (0, 2, 4):
            logits, mask = logits_and_mask()
            scores.update([start, start + 1], logits.argmax(dim=1), mask)


# The steps ---------------------------------------------------------------------------------------


def steps():
    """Every decoder with every upsampling; losses, freeze levels and weights in turn."""
    freezing = get_args(FreezeLevel)
    pairs = [(kind, way) for kind in get_args(DecoderKind) for way in get_args(Upsampling)]
    for number, (decoder, upsampling) in enumerate(pairs):
        kind = KINDS[number % len(KINDS)]
        changes = {
            "decoder.kind": decoder,
            "decoder.upsampling": upsampling,
            "encoder.freeze": freezing[number % len(freezing)],
            "loss.kind": kind,
            "decoder.attention": ("none", "scse")[number % 2],
            "decoder.deep_supervision": 0.5 if number % 3 == 0 else 0,
            "ema_decay": 0.9 if number % 2 else None,
            "accumulation": 1 + number % 2,
        }
        if kind in WEIGHTED:
            changes["loss.class_weights"] = "balanced"
        yield pytest.param(changes, id=", ".join(map(str, changes.values())))
    for name, level in (("tf_efficientnet_lite0", "stage1"), ("mobilenetv3_small_100", "none")):
        changes = {"encoder.kind": "timm", "encoder.name": name, "encoder.freeze": level}
        yield pytest.param(changes, id=f"{name}, {level}")


def config_with(**changes):
    base = {
        "encoder": {"name": "resnet18", "weights": "none"},
        "augment": {"crop_px": 32},
        "batch_size": 4,
        "precision": "bf16",
        "memory_format": "channels_last",
        "data": {"kind": "mni152"},  # not opened: the tests bring their own
    }
    return decode_config(base, changes)


class Images:
    """A split of images without values; reading one too many ends the test."""

    class_pixels = np.array([70, 30, 0])
    names = tuple("abcde")

    def __init__(self, channels):
        self.channels = channels
        self.shapes = ((40, 48),) * 4 + ((70, 50),)  # in a batch of its own

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if index == len(self) - 1:
            raise ReachedError
        image = torch.zeros(self.channels, 40, 48, dtype=torch.uint8)
        return Sample(self.names[index], image, torch.zeros(40, 48, dtype=torch.uint8))


class Data(SimpleNamespace):
    def __getitem__(self, split):
        return self.split


def data_of(channels=3):
    return Data(
        num_classes=CLASSES,
        class_names=("a", "b", "c"),
        channels=channels,
        image_max=255,
        split=Images(channels),
    )


class Batches:
    """As many micro-batches as two steps need, and then the end of the test."""

    steps = 3

    def __init__(self, config, channels):
        self.config, self.channels = config, channels

    def epoch(self, epoch):
        count, side = self.config.batch_size // self.config.accumulation, 45
        for _ in range(2 * self.config.accumulation):
            yield RawBatch(
                torch.zeros(count, self.channels, side, side, dtype=torch.uint8),
                torch.zeros(count, side, side, dtype=torch.uint8),
                torch.zeros(count, 2, 3),
                torch.zeros(count, 3),
            )
        raise ReachedError


def state_of(config, data):
    with torch.device(CUDA):
        return TrainState(config, data, CUDA)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("changes", steps())
def test_the_train_step_does_not_wait(changes, channels):
    if channels == 1 and changes.get("decoder.upsampling") != "bilinear":
        return
    config, data = config_with(**changes), data_of(channels)
    loss, normalization = loss_for(config.loss, data), input_normalization(config.encoder, channels)
    with fake_cuda():
        state = state_of(config, data)
        with NoWaiting(), pytest.raises(ReachedError):
            train_epoch(config, data, state, Batches(config, channels), loss, normalization)
    assert state.optimizer.state


@pytest.mark.parametrize(
    "name", ["test_vit", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"]
)
def test_the_train_step_of_a_vision_transformer_does_not_wait(name, monkeypatch):
    for module in ("vision_transformer", "eva"):  # timm reads them from a tensor as it builds
        rates = f"timm.models.{module}.calculate_drop_path_rates"
        monkeypatch.setattr(rates, lambda rate, depth: [0.0] * depth)
    vit = {"kind": "vit", "name": name, "weights": "none", "freeze": "block2", "layer_decay": 0.8}
    config, data = config_with(encoder=vit), data_of()
    loss, normalization = loss_for(config.loss, data), input_normalization(config.encoder, 3)
    with fake_cuda():
        state = state_of(config, data)
        with NoWaiting(), pytest.raises(ReachedError):
            train_epoch(config, data, state, Batches(config, 3), loss, normalization)
    assert state.optimizer.state


@pytest.mark.parametrize("kind", KINDS)
def test_the_validation_step_does_not_wait(kind):
    config, data = config_with(**{"loss.kind": kind, "batch_size": 2}), data_of()
    loss = loss_for(config.loss, data)
    with fake_cuda():
        model = state_of(config, data).model
        computed = []
        model.register_forward_hook(lambda model, inputs, logits: computed.append(logits.device))
        with NoWaiting(), pytest.raises(ReachedError):
            evaluate(config, data, data["val"], model, loss, keep=[0], keep_matrices=True)
    assert set(computed) == {CUDA}


def test_the_validation_step_of_scaled_images_does_not_wait():
    class Scaled(Images):
        original_shapes = ((100, 90),) * 5

        def __getitem__(self, index):
            original = torch.zeros(100, 90, dtype=torch.uint8)
            return replace(super().__getitem__(index), original=original)

    config, data = config_with(batch_size=2), data_of()
    data.split = Scaled(3)
    with fake_cuda():
        model, loss = state_of(config, data).model, loss_for(config.loss, data)
        counted = []
        count = SegmentationMetrics.update

        def update(self, labels, masks):
            counted.append((labels.device, tuple(labels.shape), tuple(masks.shape)))
            return count(self, labels, masks)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SegmentationMetrics, "update", update)
            with NoWaiting(), pytest.raises(ReachedError):
                evaluate(config, data, data["val"], model, loss, keep=[0], keep_matrices=True)
    assert counted == [(CUDA, (1, 100, 90), (1, 100, 90))] * 4


@pytest.mark.parametrize("changes", [{}, {"encoder.freeze": "stage2"}, {"ema_epochs": None}])
def test_recomputing_the_statistics_of_batch_norm_does_not_wait(changes):
    config, data = config_with(**changes), data_of()
    normalization = input_normalization(config.encoder, 3)
    with fake_cuda():
        state = state_of(config, data)
        images = (
            augmented(raw, data, config.augment.crop_px, normalization, CUDA)[0]
            for raw in islice(Batches(config, 3).epoch(1), 2)
        )
        with NoWaiting():
            update_batch_norm(state.evaluated_model, images)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_augmentation_with_every_effect_does_not_wait(channels):
    with fake_cuda(), NoWaiting():
        raw = RawBatch(
            torch.zeros(2, channels, 70, 70, dtype=torch.uint8, device=CUDA),
            torch.zeros(2, 70, 70, dtype=torch.uint8, device=CUDA),
            torch.zeros(2, 2, 3, device=CUDA),
            torch.zeros(2, 10, device=CUDA),
        )
        normalization = input_normalization(config_with().encoder, channels)
        inputs, labels = augmented(raw, data_of(channels), 32, normalization, CUDA)
        assert (inputs.shape, labels.shape) == ((2, channels, 32, 32), (2, 32, 32))


# The same on a GPU, where there is one -----------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("kind", "weights"), every_loss())
def test_no_loss_and_no_metric_waits_for_a_real_gpu(kind, weights):
    logits, mask = logits_and_mask()
    loss, metrics = loss_of(kind, weights), SegmentationMetrics(CLASSES)
    scores = ImageScores(metrics, keep=[1], worst=2)
    torch.autograd.backward(loss(logits, mask))
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.backward(loss(logits, mask))
        scores.update([0, 1], logits.argmax(dim=1), mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert metrics.compute()["miou"] == 1
