"""Training as a generator: `for report in fit(config, data): ...` yields after every epoch.

The caller reports, saves, tracks and stops. N batch, I images of a split, K classes, H W image
size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from unetexp.compute.distributed import ALONE, Ranks
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.errors import NonFiniteLossError
from unetexp.models.unet import UNet, freeze_encoder
from unetexp.models.weights.resolution import Normalization, input_normalization
from unetexp.training.averaging import update_batch_norm
from unetexp.training.batches.train_batches import TrainBatches, augmented
from unetexp.training.config import SCORE, TrainConfig
from unetexp.training.losses import LossFunction, loss_for
from unetexp.training.proof.proof import prove
from unetexp.training.proof.reading import LiveRun
from unetexp.training.state import TrainState
from unetexp.training.step import TrainStep
from unetexp.training.validation import Evaluation, evaluate

_STEPS_BETWEEN_CHECKS = 50  # reading a loss waits for the GPU: check many at once
_SAME_VIEWS = 0  # an epoch that is never trained: a sample that changed would make scores jump


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch."""

    epoch: int
    metrics: dict[str, float]  # flat names: train/loss, val/miou, ...
    improved: bool
    evaluation: Evaluation
    notes: tuple[str, ...] = ()  # what the user should know, such as a setting that did not work


def fit(
    config: TrainConfig,
    data: Dataset,
    state: TrainState,
    *,
    workers: int = 0,
    keep_predictions: Sequence[int] = (),
    ranks: Ranks = ALONE,
    score: str = SCORE,
) -> Iterator[EpochReport]:
    """Train from the epoch of `state` to the last one, yielding after each.

    `state` is advanced in place and may be saved between two reports. `keep_predictions` are the
    validation images whose label maps are in the reports. `score` is the validation metric of
    which the largest value makes the best epoch. With several ranks each calls this
    with an equal `state`, takes its share of the images and gets the same reports. Raises
    NonFiniteLossError as soon as a loss is NaN or infinite, and SettingIgnoredError after an
    epoch that was not trained as `config` says.
    """
    loss = loss_for(config.loss, data)
    normalization = input_normalization(config.encoder, data.channels)
    batches = TrainBatches(data["train"], config, workers=workers, device=state.device, ranks=ranks)
    torch.backends.cudnn.benchmark = True  # the crop's size is fixed
    while state.epoch < config.epochs:
        started = time.perf_counter()
        train = train_epoch(config, data, state, batches, loss, normalization, ranks)
        prove(LiveRun(config, data, state, batches, ranks.world))
        _update_batch_norm(config, data, state, batches, ranks)
        trained = time.perf_counter()
        evaluation = evaluate(
            config,
            data,
            data["val"],
            state.evaluated_model,
            loss,
            keep=keep_predictions,
            ranks=ranks,
            compute=state.compute,
            workers=workers,
        )
        state.epoch += 1
        val = {f"val/{name}": value for name, value in evaluation.metrics.items()}
        _require_finite("val/loss", val["val/loss"], state.epoch)
        clock = {"time/train_s": trained - started, "time/val_s": time.perf_counter() - trained}
        metrics = {**train, **val, **clock}
        improved = state.record(metrics, val[score], last=data.val_in_train)
        yield EpochReport(state.epoch, metrics, improved, evaluation, state.take_notes())


def train_epoch(
    config: TrainConfig,
    data: Dataset,
    state: TrainState,
    batches: TrainBatches,
    loss: LossFunction,
    normalization: Normalization,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """One pass over the training split; returns train/loss and train/lr."""
    epoch = state.epoch + 1
    freeze_encoder(state.model, freeze_level(config, epoch))
    state.model.train()
    learn = TrainStep(config, data, state, loss, normalization, ranks)
    losses = _StepLosses(epoch)
    lr = 0.0
    micro_batches = batches.epoch(epoch)
    for step in range(batches.steps):
        lr = _set_learning_rates(config, state, state.epoch + step / batches.steps)
        losses.add(learn(islice(micro_batches, config.accumulation)))
    return {"train/loss": losses.mean(), "train/lr": lr}


def freeze_level(config: TrainConfig, epoch: int) -> str:
    """What is frozen in `epoch`."""
    return config.encoder.frozen_in(epoch)


def _update_batch_norm(
    config: TrainConfig,
    data: Dataset,
    state: TrainState,
    batches: TrainBatches,
    ranks: Ranks,
) -> None:
    """Statistics of always the same micro-batches for the model that is validated."""
    if not config.batch_norm_images:
        return
    epoch, model = state.epoch + 1, state.evaluated_model
    freeze_encoder(model, freeze_level(config, epoch))
    ranks.synchronise(model)
    precise_statistics(
        config, data, model, batches, state.compute, state.device, config.batch_norm_images
    )


def precise_statistics(
    config: TrainConfig,
    data: Dataset,
    model: UNet,
    batches: TrainBatches,
    compute: ComputeSettings,
    device: torch.device,
    images: int,
) -> None:
    """Batch norm's statistics of `images` training images, rounded up to micro-batches."""
    count = -(-images // config.micro_batch_size)
    raw_batches = islice(batches.epoch(_SAME_VIEWS), count)
    normalization = input_normalization(config.encoder, data.channels)
    size_px, layout = config.augment.crop_px, compute.layout
    inputs = (augmented(raw, data, size_px, normalization, device)[0] for raw in raw_batches)
    with compute.autocast(device):
        update_batch_norm(model, (each.contiguous(memory_format=layout) for each in inputs))


def _set_learning_rates(config: TrainConfig, state: TrainState, progress: float) -> float:
    """Set every group's learning rate for `progress` (finished epochs); returns the base rate."""
    for group in state.optimizer.param_groups:
        group["lr"] = config.schedule.lr(group["base_lr"], progress, config.epochs)
    return config.schedule.lr(config.optimizer.lr, progress, config.epochs)


class _StepLosses:
    """The losses of an epoch's steps, read from the device many at a time.

    Reading raises NonFiniteLossError for the first one that is NaN or infinite.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._read: list[float] = []
        self._unread: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """The loss () of the next step."""
        self._unread.append(loss)
        if len(self._unread) == _STEPS_BETWEEN_CHECKS:
            self._take_in()

    def mean(self) -> float:
        """The mean over all steps."""
        self._take_in()
        return math.fsum(self._read) / len(self._read)

    def _take_in(self) -> None:
        if not self._unread:
            return
        for value in torch.stack(self._unread).tolist():
            self._read.append(value)
            _require_finite("train/loss", value, self._epoch, len(self._read))
        self._unread = []


def _require_finite(metric: str, value: float, epoch: int, step: int | None = None) -> None:
    if value - value != 0:  # NaN and both infinities
        where = f"epoch {epoch}" + (f", step {step}" if step else "")
        raise NonFiniteLossError(
            f"{metric} became {value} in {where}. Lower optimizer.lr, set clip_norm, or train "
            "with precision: fp32."
        )
