"""Every run proves its settings: one that is ignored stops it before its second epoch."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
import torchvision
from torch import nn

from sweeps.config.loading import available_recipes, load_recipe
from sweeps.config.space import holds
from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Folder, open_dataset
from unetexp.errors import SettingIgnoredError
from unetexp.models.encoders import FeatureEncoder, ViTEncoder
from unetexp.models.encoders.vit import ViT
from unetexp.models.weights.provenance import RANDOM
from unetexp.training import loop, state, step
from unetexp.training.batches.train_batches import TrainBatches
from unetexp.training.config import TrainConfig
from unetexp.training.loop import fit
from unetexp.training.optim import SGD, AdamW
from unetexp.training.state import TrainState

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
QUICK = {
    "batch_norm_images": 0,
    "batch_size": 4,
    "epochs": 2,
    "ema_epochs": None,
    "decoder.widths": [16, 8, 8, 8, 8],
}
VIT = {"encoder.kind": "vit", "encoder.name": "vit_tiny_patch16_224"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 4, "val": 1}, size=(32, 32), classes=3)
    return open_dataset(Folder(root=str(root)))


def train(data, changes, epochs=1):
    config = config_with(**QUICK | changes)
    run = TrainState(config, data, CPU)
    list(islice(fit(config, data, run), epochs))
    return run.settings


# How a setting can be ignored: what is built gets the default, or another value, in its place


def built_with(part, **other):
    """The model's decoder or encoder is built with `other` settings."""

    def sabotage(patch):
        build = state.build_unet

        def built(encoder, decoder, *sizes):
            parts = {"encoder": encoder, "decoder": decoder}
            parts[part] = parts[part].model_copy(update=other)
            return build(*parts.values(), *sizes)

        patch.setattr(state, "build_unet", built)

    return sabotage


def grouped_with(place, value):
    def sabotage(patch):
        real = state.parameter_groups

        def grouped(*given, **named):
            return real(*[value if i == place else each for i, each in enumerate(given)], **named)

        patch.setattr(state, "parameter_groups", grouped)

    return sabotage


def optimised_by(kind, make):
    return lambda patch: patch.setattr(
        kind, "build", lambda self, groups, fused=False: make(self, groups)
    )


def lost_as(**other):
    def sabotage(patch):
        real = loop.loss_for
        patch.setattr(
            loop, "loss_for", lambda loss, data: real(loss, data).model_copy(update=other)
        )

    return sabotage


def fed_with(**other):
    """The batches are made with `other` settings of the experiment, or of its augmentation."""

    def sabotage(patch):
        def batches(split, config, **how):
            own = {k: v for k, v in other.items() if k in TrainConfig.model_fields}
            views = {k: v for k, v in other.items() if k not in own}
            augment = config.augment.model_copy(update=views)
            return TrainBatches(split, config.model_copy(update={**own, "augment": augment}), **how)

        patch.setattr(loop, "TrainBatches", batches)

    return sabotage


def computed_with(**other):
    def sabotage(patch):
        real = state.resolved
        patch.setattr(state, "resolved", lambda *given: replace(real(*given), **other))

    return sabotage


def always(module, name, value):
    """A function that gives the same, whatever it is asked for."""
    return lambda patch: patch.setattr(module, name, lambda *_, **__: value)


def other_crop(patch):
    real = step.augmented
    patch.setattr(step, "augmented", lambda raw, data, side, *more: real(raw, data, 48, *more))


def never_frozen(patch):
    real = loop.freeze_encoder
    patch.setattr(loop, "freeze_encoder", lambda model, level: real(model, "none"))


def norms_that_move(patch):
    patch.setattr(FeatureEncoder, "train", lambda self, mode=True: nn.Module.train(self, mode))


def frozen_but_updated(patch):
    """As an optimiser that holds state of tensors which should not learn."""
    real = loop.train_epoch

    def trained(config, data, run, *more):
        result = real(config, data, run, *more)
        run.optimizer.state[run.model.encoder.conv1.weight] = {"step": torch.ones(())}
        return result

    patch.setattr(loop, "train_epoch", trained)


def one_micro_batch(patch):
    patch.setattr(loop, "islice", lambda batches, count: islice(batches, 1))


SGD_KIND = {"optimizer.kind": "sgd"}
IGNORED = {
    "encoder.name": ({"encoder.name": "resnet34"}, built_with("encoder", name="resnet18")),
    "encoder.layer_decay": (
        {**VIT, "encoder.layer_decay": 0.5},
        lambda patch: patch.setattr(ViT, "build", lambda self, n: ViTEncoder(self.name, n)),
    ),
    "encoder.freeze": ({"encoder.freeze": "stage2"}, never_frozen),
    "encoder.freeze, norms": ({"encoder.freeze": "stage2"}, norms_that_move),
    "encoder.freeze, updates": ({"encoder.freeze": "stem"}, frozen_but_updated),
    "encoder.lr_scale": ({"encoder.lr_scale": 0.1}, grouped_with(3, 1.0)),
    "decoder.kind": ({"decoder.kind": "classic"}, built_with("decoder", kind="slim")),
    "decoder.upsampling": (
        {"decoder.upsampling": "nearest"},
        built_with("decoder", upsampling="bilinear"),
    ),
    "decoder.attention": ({"decoder.attention": "scse"}, built_with("decoder", attention="none")),
    "decoder.widths": ({"decoder.widths": [24, 16, 8, 8, 8]}, built_with("decoder", widths=None)),
    "decoder.width_factor": (
        {"decoder.width_factor": 2.0},
        built_with("decoder", width_factor=1.0),
    ),
    "decoder.deep_supervision": (
        {"decoder.deep_supervision": 0.4},
        always(state, "deep_supervision_of", None),
    ),
    "optimizer.kind": (
        SGD_KIND,
        optimised_by(SGD, lambda self, groups: torch.optim.AdamW(groups, lr=self.lr)),
    ),
    "optimizer.lr": ({"optimizer.lr": 0.005}, grouped_with(1, 1e-3)),
    "optimizer.weight_decay": ({"optimizer.weight_decay": 0.3}, grouped_with(2, 1e-4)),
    "optimizer.head_lr_scale": ({"optimizer.head_lr_scale": 5}, grouped_with(4, 30.0)),
    "optimizer.beta1": (
        {"optimizer.beta1": 0.5},
        optimised_by(AdamW, lambda self, groups: torch.optim.AdamW(groups, lr=self.lr)),
    ),
    "optimizer.momentum": (
        SGD_KIND,
        optimised_by(SGD, lambda self, groups: torch.optim.SGD(groups, lr=self.lr)),
    ),
    "schedule": (
        {"schedule.warmup_epochs": 1.5},
        always(loop, "_set_learning_rates", 0.0),
    ),
    "loss.kind": (
        {"loss.kind": "focal"},
        lambda patch: patch.setattr(loop, "loss_for", lambda loss, data: config_with().loss),
    ),
    "loss.gamma": ({"loss.kind": "focal", "loss.gamma": 1.0}, lost_as(gamma=2.0)),
    "loss.class_weights": ({"loss.class_weights": "balanced"}, lost_as(class_weights="none")),
    "augment.crop_px": ({"augment.crop_px": 64}, other_crop),
    "augment.hflip": ({"augment.hflip": 0.0}, fed_with(hflip=0.5)),
    "augment.rotation_deg": ({"augment.rotation_deg": 90}, fed_with(rotation_deg=10.0)),
    "augment.strength": ({"augment.strength": 2.0}, fed_with(strength=1.0)),
    "batch_size": ({"batch_size": 2}, fed_with(batch_size=4)),
    "accumulation": ({"accumulation": 2}, one_micro_batch),
    "min_steps": ({"min_steps": 3}, fed_with(min_steps=1)),
    "seed": ({"seed": 5}, fed_with(seed=0)),
    "sampler.kind": (
        {"sampler.kind": "rare_classes"},
        fed_with(sampler=config_with().sampler),
    ),
    "precision": ({"precision": "bf16"}, computed_with(precision="fp32")),
    "memory_format": (
        {"memory_format": "channels_last"},
        computed_with(memory_format="contiguous"),
    ),
    "compile": ({"compile": "default"}, computed_with(compile="none")),
    "ema_epochs": ({"ema_epochs": 20}, always(state, "AveragedWeights", None)),
    "clip_norm": (
        {"clip_norm": 1e-3},
        always(torch.nn.utils, "clip_grad_norm_", None),
    ),
}


@pytest.mark.parametrize("case", IGNORED)
def test_an_ignored_setting_is_named(case, data, monkeypatch):
    changes, sabotage = IGNORED[case]
    sabotage(monkeypatch)
    with pytest.raises(SettingIgnoredError, match=case.partition(",")[0] + ": .* was asked for"):
        train(data, changes)


def test_a_thaw_that_never_comes_is_named_when_it_is_due(data, monkeypatch):
    changes = {"encoder.freeze": "all", "encoder.thaw_epoch": 2}
    monkeypatch.setattr(loop, "freeze_level", lambda config, epoch: config.encoder.freeze)
    train(data, changes)
    with pytest.raises(SettingIgnoredError, match=r"encoder\.thaw_epoch: none was asked for"):
        train(data, changes, epochs=2)


def test_weights_that_were_not_loaded_are_named(data, monkeypatch, tmp_path):
    place = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), place)
    train(data, {"encoder.weights": str(place)})
    monkeypatch.setattr(state, "load_encoder_weights", lambda *_: RANDOM)
    with pytest.raises(SettingIgnoredError, match=r"encoder\.weights"):
        train(data, {"encoder.weights": str(place)})


def test_rates_that_a_checkpoint_of_another_run_brings_are_named(data):
    config, other = config_with(**QUICK), config_with(**QUICK | {"optimizer.lr": 0.1})
    run = TrainState(config, data, CPU)
    run.load_state_dict(TrainState(other, data, CPU).state_dict())
    with pytest.raises(SettingIgnoredError, match=r"optimizer\.lr: 0\.001 was asked for, and 0\.1"):
        list(fit(config, data, run))


def values_in_recipes():
    """Dotted path -> every value that some shipped recipe tries, ranges by their ends."""
    found, conditions = {}, {}
    for name in available_recipes():
        for path, dimension in load_recipe(name, {}).space.items():
            found.setdefault(path, dict.fromkeys(dimension.samples())).update(
                dict.fromkeys(dimension.samples())
            )
            conditions.setdefault(path, dimension.when)
    return {path: list(values) for path, values in found.items()}, conditions


def points():
    """The fewest points in which each of these values occurs, where its conditions hold."""
    values, conditions = values_in_recipes()
    kinds_first = sorted(values, key=lambda path: (bool(conditions[path]), path))
    for number in range(max(map(len, values.values()))):
        point = {}
        for path in kinds_first:
            if holds(conditions[path], {"encoder.kind": "resnet", **point}):
                point[path] = values[path][number % len(values[path])]
        yield point


@pytest.mark.parametrize("point", points(), ids=str)
def test_every_setting_that_recipes_search_is_proved(point, data):
    small = {"augment.crop_px": 32, "encoder.weights": "none", "batch_size": 2}
    point = {path: value for path, value in point.items() if path != "encoder.weights"}
    if point.get("encoder.name", "resnet50").startswith("resnet"):
        point["encoder.name"] = "resnet18"
    settings = train(data, {**point, **small})
    proved = settings["proved"].split(", ")
    assert not {*point} - {*proved} - {"encoder.thaw_epoch"}
    assert {"optimizer.lr", "encoder.freeze", "loss.kind", "augment.crop_px"} <= {*proved}
    assert "batch_norm_images" in settings["not_read"]
