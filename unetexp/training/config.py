"""`TrainConfig`: everything that defines one experiment, as one tree of parts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from unetexp.component import Component, Tree, decode, override
from unetexp.data import DataSource, Mni152
from unetexp.errors import ConfigError
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder, ResNet
from unetexp.training.augmenting.augmentation import Augment
from unetexp.training.losses import CrossEntropy, Loss
from unetexp.training.optim import AdamW, Cosine, Optimizer, Schedule
from unetexp.training.sampling import Sampler, Uniform

SCORE = "val/miou"  # by which an epoch is the best one, where nothing else is asked for
SPREAD = "/std"  # after a metric's name: its sample standard deviation over the folds


class TrainConfig(Component):
    """One experiment. Equal configs on equal data give bit-identical results on one CPU."""

    data: DataSource = Field(Mni152(), description="the images and masks to train on")
    augment: Augment = Field(
        Augment(),
        description="random changes of training images; validation images are never changed. The "
        "crop is cut from a randomly zoomed, rotated and flipped view; pixels outside the image "
        "are 0, and void in the mask",
    )
    sampler: Sampler = Field(
        Uniform(), description="how often each training image is drawn; the ranks share one order"
    )
    encoder: Encoder = Field(ResNet(), description="the encoder, of one of several families")
    decoder: Decoder = Field(
        Decoder(),
        description="the up blocks. `classic` has a bridge and widths that halve from block to "
        "block (1024, 512, 256, 128, 64 over a ResNet-50), as in the original repository; `slim` "
        "has no bridge and the widths 256, 128, 64, 32, 16",
    )
    loss: Loss = Field(
        CrossEntropy(),
        description="void pixels (255) are left out of all sums and counts; a class that does not "
        "occur in a batch is left out of the mean over classes",
    )
    optimizer: Optimizer = Field(
        AdamW(), description="the optimiser; norm layers and biases get no weight decay"
    )
    schedule: Schedule = Field(Cosine(), description="how the learning rate changes over epochs")
    epochs: int = Field(20, ge=1, le=100_000, description="passes over the training split")
    batch_size: int = Field(8, ge=1, le=4096, description="images per optimiser step")
    accumulation: int = Field(
        1, ge=1, le=4096, description="number of micro-batches that a batch is split into"
    )
    clip_norm: float | None = Field(1.0, gt=0, description="largest gradient norm; null: no limit")
    ema_epochs: float | None = Field(
        0.5,
        gt=0,
        le=1000,
        description="epochs that the averaged (EMA) weights, which are validated, reach back: a "
        "decay of 1 - 1 / (ema_epochs * steps) a step; null: no averaging",
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="the decay a step itself, in place of `ema_epochs`"
    )
    batch_norm_images: int = Field(
        32,
        ge=0,
        le=1_000_000,
        description="training images, always the same, that batch norm's statistics are computed "
        "from again before each validation, rounded up to micro-batches; 0: the running averages "
        "of training",
    )
    min_steps: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="least optimiser steps of an epoch, which repeats a small training split",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="auto: what was measured to be fastest; without a measurement bf16 where the "
        "hardware computes in it, fp16 on other GPUs, fp32 on other CPUs. fp16 scales the loss, "
        "and a step whose gradients overflow is left out",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto", description="auto: channels_last where it was measured to be faster"
    )
    compile: Literal["auto", "none", "default", "reduce-overhead"] = Field(
        "auto",
        description="mode of torch.compile for the training step's network; reduce-overhead uses "
        "CUDA graphs. auto: what was measured to save more than compiling costs, else none",
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="seed of weights, image order and augmentation"
    )

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ConfigError(
                f"accumulation is {self.accumulation}, which does not divide "
                f"batch_size {self.batch_size}: choose a divisor."
            )
        thaw = self.encoder.thaw_epoch
        if thaw is not None and thaw > self.epochs:
            raise ConfigError(
                f"encoder.thaw_epoch is {thaw}, after the last of {self.epochs} epochs: "
                "choose an earlier epoch, or leave it out to keep the encoder frozen."
            )
        return self

    def steps_per_epoch(self, images: int) -> int:
        """Optimiser steps of an epoch on a training split of so many images.

        Images that do not fill a batch are left out of an epoch.
        """
        return max(self.min_steps, images // self.batch_size)

    def averaging_decay(self, images: int) -> float | None:
        """The share of the averaged weights that a step keeps; None: nothing is averaged."""
        if self.ema_decay is not None or self.ema_epochs is None:
            return self.ema_decay
        return 1 - 1 / max(1.0, self.ema_epochs * self.steps_per_epoch(images))

    @property
    def micro_batch_size(self) -> int:
        """Images per micro-batch."""
        return self.batch_size // self.accumulation


_COLOURS_IN = (".label_map", ".ignore")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _ValueLoader(_Loader):
    """YAML of one value: a glob such as */images is text there, and no alias of another node."""

    def fetch_alias(self) -> None:
        self.fetch_plain()


def parse_yaml(text: str) -> Any:
    """The data in a YAML text; raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def read_tree(path: Path) -> Tree:
    """A YAML or JSON file as a mapping; ConfigError names the file and the line at fault."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: this file cannot be read as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, got {type(tree).__name__}")
    return tree


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`["optimizer.lr=1e-3"]` -> `{"optimizer.lr": "1e-3"}`, values read as YAML."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {assignment}: write it as PATH=VALUE, e.g. optimizer.lr=1e-3")
        if path.strip().endswith(_COLOURS_IN) and _COLOUR.search(text):
            changes[path.strip()] = text.strip()  # YAML takes an unquoted #ff0000 for a comment
            continue
        try:
            changes[path.strip()] = yaml.load(text, _ValueLoader)
        except yaml.YAMLError as error:
            if path.strip().endswith(_COLOURS_IN):  # such as {[255, 0, 0]: 1}
                changes[path.strip()] = text.strip()
                continue
            raise ConfigError(f"--set {assignment}: the value is not YAML: {error}") from None
    return changes


def decode_config(
    tree: Tree, changes: dict[str, Any] | None = None, where: str = ""
) -> TrainConfig:
    """The config that a tree describes, its defaults filled in, with dotted changes applied."""
    config: TrainConfig = decode(TrainConfig, tree, where)
    if not changes:
        return config
    changed: TrainConfig = decode(TrainConfig, override(TrainConfig, config.tree(), changes))
    return changed


def settings_before(tree: Tree) -> dict[str, Any]:
    """What an earlier version did where it had no setting yet, as dotted changes of its tree.

    `tree` is a whole config as it was recorded. Runs that began before go on as they were.
    """
    if "batch_norm_images" in tree:
        return {}
    found: dict[str, Any] = {"batch_norm_images": 0, "ema_epochs": None}
    if tree["schedule"]["kind"] == "cosine":
        found["schedule.hold"] = 0.0
    if "warmup_epochs" in tree["schedule"]:
        found["schedule.warmup_epochs"] = tree["schedule"]["warmup_epochs"]
    if tree["optimizer"]["kind"] == "adamw":
        found["optimizer.head_lr_scale"] = 1.0
    return found


def decode_recorded(tree: Tree, where: str = "") -> TrainConfig:
    """The config of a run whose whole tree was recorded, by this version or an earlier one."""
    before = settings_before(tree) if {"schedule", "optimizer"} <= tree.keys() else {}
    config: TrainConfig = decode(TrainConfig, override(TrainConfig, tree, before), where)
    return config
