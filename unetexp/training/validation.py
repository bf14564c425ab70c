"""Validation: the metrics of a model on the whole images of a split.

Neither the metrics nor the loss depend on how the images are grouped: the loss is the mean over
the images of each image's own loss. An image whose pass would not fit into memory is computed in
tiles that overlap so far that its logits stay the same up to rounding. Where images are scaled to
a working size, the loss is of that size; the logits are scaled back, so that the metrics are those
of the images' own size.

N batch, I images of a split, C channels, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unetexp.compute.cudnn import without_benchmark
from unetexp.compute.distributed import ALONE, Ranks
from unetexp.compute.settings import ComputeSettings, resolved
from unetexp.compute.upsampling import upsampled, upsampled_labels
from unetexp.data import Dataset, Samples
from unetexp.data.decoded.sample import original_shapes
from unetexp.data.labels import VOID
from unetexp.metrics.calibration import BINS, calibration_sums
from unetexp.metrics.per_image import ImageScores
from unetexp.metrics.segmentation import SegmentationMetrics
from unetexp.models.weights.resolution import Normalization, input_normalization, to_input
from unetexp.postprocessing.labels import labels_of
from unetexp.postprocessing.settings import Postprocessing
from unetexp.training.batches.whole_images import Limits, WholeBatch, whole_images
from unetexp.training.config import TrainConfig
from unetexp.training.losses import LossFunction

WORST = 4  # how many images with the lowest mIoU keep their label maps

# index, predicted labels and truth (H, W) uint8 at the image's own size, and its `calibration_sums`
Observer: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one pass over a split."""

    metrics: dict[str, float]  # miou, dice, pixel_accuracy, iou/<class>, ..., loss
    confusion: Tensor  # (K, K) int64, rows are the target
    predictions: dict[int, Tensor]  # label maps (H, W) uint8 of the requested images
    image_miou: Tensor  # (I,) float64, mIoU of each image; NaN if all of it is void
    worst: dict[int, Tensor]  # label maps of the images with the lowest mIoU, the lowest first
    matrices: Tensor | None = None  # (I, K, K) int64, one confusion matrix per image, if requested

    @property
    def figures(self) -> dict[str, float]:
        """`metrics`, under its earlier name."""
        return self.metrics


@torch.inference_mode()
def evaluate(
    config: TrainConfig,
    data: Dataset,
    split: Samples,
    model: nn.Module,
    loss: LossFunction,
    *,
    keep: Sequence[int] = (),
    ranks: Ranks = ALONE,
    worst: int = WORST,
    keep_matrices: bool = False,
    compute: ComputeSettings | None = None,
    workers: int = 0,
    without: Sequence[int] = (),
    observe: Observer | None = None,
    postprocessing: Postprocessing | None = None,
) -> Evaluation:
    """The metrics of `model` on whole images at their own size, the same for every trial.

    The label maps of the images `keep` and of the `worst` ones are included. The ranks share
    the images, and each gets the metrics of them all. `compute` replaces the config's settings.
    Up to two of `workers` threads load images in advance; the metrics do not depend on them.
    The channels `without`, counted from 0, are set to their means, as if they were missing.
    `observe` is given each image that this rank has computed. Labels and probabilities are
    postprocessed where that is asked for; the loss is the model's own.
    """
    device = next(model.parameters()).device
    # the ranks' counts are gathered with their images' below
    metrics = SegmentationMetrics(
        data.num_classes, class_names=list(data.class_names), sync_on_compute=False
    )
    scores = ImageScores(metrics, keep=keep, worst=worst, keep_matrices=keep_matrices)
    judge = _Judge(
        model.eval(),
        device,
        loss,
        compute or resolved(config, device),
        input_normalization(config.encoder, data.channels),
        data.image_max,
        Limits.of(model, data.num_classes),
        tuple(without),
        observe is not None,
        postprocessing,
        data.class_names,
    )
    shapes = original_shapes(split)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    pin = device.type == "cuda"
    with without_benchmark():
        for batch in whole_images(split, judge.limits, ranks, workers=workers, pin=pin):
            judged = judge(batch)
            loss_sum += judged.loss
            for pair in judged.pairs():
                scores.update(pair.indices, pair.labels, pair.masks)
                if observe:
                    pair.show(observe, shapes)
            del judged, pair  # before the next forward pass
    return _merged(ranks.gather((scores, float(loss_sum))), shapes)


class _Part(NamedTuple):
    """The logits of a rectangle of all images of a batch."""

    rows: slice
    columns: slice
    logits: Tensor  # (N, K, H, W)


class _Pair(NamedTuple):
    """Predicted labels and truth (N, H, W) uint8 of some images."""

    indices: list[int]
    labels: Tensor
    masks: Tensor
    calibration: Tensor  # (N, B + 2) float64; zeros if it was not asked for

    def show(self, observe: Observer, shapes: Sequence[tuple[int, int]]) -> None:
        """Give each image, without its padding, to `observe`."""
        for n, index in enumerate(self.indices):
            height, width = shapes[index]
            labels, masks = (part[n, :height, :width] for part in (self.labels, self.masks))
            observe(index, labels, masks, self.calibration[n])


class _Judged(NamedTuple):
    batch: WholeBatch
    labels: Tensor  # (N, H, W) uint8, predicted; nothing where `logits` are given
    masks: Tensor  # (N, H, W) uint8
    loss: Tensor  # float64, the sum over the images of each one's own
    logits: Tensor | None  # (N, K, H, W) of images that were scaled to this size
    calibration: Tensor  # (N, B + 2) float64; zeros where `logits` are given
    judge: _Judge

    def pairs(self) -> Iterator[_Pair]:
        """The images at their own size."""
        if self.logits is None:
            yield _Pair(self.batch.indices, self.labels, self.masks, self.calibration)
            return
        for n, index in enumerate(self.batch.indices):
            height, width = self.batch.masks[n].shape
            truths = self.batch.truths or self.batch.masks
            truth = truths[n].to(self.masks.device, non_blocking=True)
            size = truth.shape[0], truth.shape[1]
            if self.judge.postprocessing is not None:
                yield self._postprocessed(n, index, truth)
                continue
            calibration = torch.zeros_like(self.calibration[:1])

            def see(
                rows: slice, block: Tensor, truth: Tensor = truth, sums: Tensor = calibration
            ) -> None:
                sums += calibration_sums(block.softmax(dim=0)[None], truth[None, rows])

            logits = self.logits[n, :, :height, :width]
            labels = upsampled_labels(logits, size, see if self.judge.calibrate else None)
            yield _Pair([index], labels[None], truth[None], calibration)

    def _postprocessed(self, n: int, index: int, truth: Tensor) -> _Pair:
        """The image number `n` of the batch, as the model's user gets it."""
        settings, classes = self.judge.postprocessing, self.judge.class_names
        assert settings is not None and self.logits is not None
        height, width = self.batch.masks[n].shape
        logits = self.logits[n, :, :height, :width].float()
        size = truth.shape[0], truth.shape[1]
        whole = torch.cat([part for _, part in upsampled(logits, size)], dim=1)
        shares = (whole / settings.temperature).softmax(dim=0)
        found = labels_of(shares.cpu().numpy(), settings, classes)
        labels = torch.from_numpy(found).to(truth.device)
        calibration = torch.zeros_like(self.calibration[:1])
        if self.judge.calibrate:
            calibration += calibration_sums(shares[None], truth[None])
        return _Pair([index], labels[None], truth[None], calibration)


@dataclass(frozen=True)
class _Judge:
    """A model with its loss, on batches of whole images."""

    model: nn.Module
    device: torch.device
    loss: LossFunction
    compute: ComputeSettings
    normalization: Normalization
    image_max: int
    limits: Limits
    without: tuple[int, ...] = ()  # channels, from 0, that are set to their means
    calibrate: bool = False
    postprocessing: Postprocessing | None = None
    class_names: tuple[str, ...] = ()

    def __call__(self, batch: WholeBatch) -> _Judged:
        images, masks = batch.padded(self.limits, self.device)
        labels = torch.empty_like(masks)
        scaled: Tensor | None = None
        losses = torch.zeros(len(masks), dtype=torch.float64, device=masks.device)
        weights = torch.zeros_like(losses)
        calibration = losses.new_zeros(len(masks), BINS + 2)
        for part in self._parts(images):
            if batch.truths or self.postprocessing is not None:
                scaled = _placed(part, scaled, images)
            else:
                labels[:, part.rows, part.columns] = part.logits.argmax(dim=1)
                if self.calibrate:
                    shares = part.logits.float().softmax(dim=1)
                    calibration += calibration_sums(shares, masks[:, part.rows, part.columns])
            for n, (height, width) in enumerate(mask.shape for mask in batch.masks):
                mask = masks[n : n + 1, part.rows, part.columns]
                mask = mask[:, : height - part.rows.start, : width - part.columns.start]
                mask = mask.long()
                logits = part.logits[n : n + 1, :, : mask.shape[1], : mask.shape[2]]
                valid = (mask != VOID).sum()
                losses[n] += self.loss(logits, mask).double() * valid
                weights[n] += valid
        loss = (losses / weights.clamp(min=1)).sum()
        return _Judged(batch, labels, masks, loss, scaled, calibration, self)

    def _parts(self, images: Tensor) -> Iterator[_Part]:
        """The logits of raw images (N, C, H, W): in one part, if their loss fits into memory."""
        height, width = images.shape[-2:]
        tiles = self._tiles(images)
        if height * width > self.limits.loss_pixels:
            yield from tiles
            return
        whole: Tensor | None = None
        for tile in tiles:
            whole = _placed(tile, whole, images)
        assert whole is not None
        yield _Part(slice(0, height), slice(0, width), whole)

    def _tiles(self, images: Tensor) -> Iterator[_Part]:
        for row, column in product(*self.limits.grid(*images.shape[-2:])):
            logits = self._logits(images[:, :, row.tile, column.tile])
            yield _Part(row.core, column.core, logits[:, :, row.inner, column.inner])

    def _logits(self, images: Tensor) -> Tensor:
        inputs = to_input(images.float() / self.image_max, self.normalization)
        for channel in self.without:
            inputs[:, channel] = 0
        with self.compute.autocast(images.device):
            logits: Tensor = self.model(inputs.contiguous(memory_format=self.compute.layout))
        return logits


def _placed(part: _Part, whole: Tensor | None, images: Tensor) -> Tensor:
    """The logits of all of `images` with those of `part`, the first one if `whole` is None."""
    if part.logits.shape[-2:] == images.shape[-2:]:
        return part.logits
    if whole is None:
        whole = part.logits.new_empty(*part.logits.shape[:2], *images.shape[-2:])
    whole[:, :, part.rows, part.columns] = part.logits
    return whole


def _merged(
    parts: list[tuple[ImageScores, float]], shapes: Sequence[tuple[int, int]]
) -> Evaluation:
    """The evaluation of images of these sizes from the counts of all ranks."""
    scores, loss_sum = parts[0]
    for other, other_loss_sum in parts[1:]:
        scores.merge(other)
        loss_sum += other_loss_sum
    computed = scores.metrics.compute()
    metrics = {name: value for name, value in computed.items() if name != "absent"}
    metrics["loss"] = loss_sum / len(shapes)
    matrices = [scores.matrices[index] for index in sorted(scores.matrices)]
    image_miou = [scores.image_miou[index] for index in range(len(shapes))]
    return Evaluation(
        metrics,
        scores.metrics.confusion_matrix,
        predictions=_cropped(dict(sorted(scores.predictions.items())), shapes),
        image_miou=torch.tensor(image_miou, dtype=torch.float64),
        worst=_cropped(scores.worst, shapes),
        matrices=torch.stack(matrices) if matrices else None,
    )


def _cropped(labels: dict[int, Tensor], shapes: Sequence[tuple[int, int]]) -> dict[int, Tensor]:
    """Label maps of padded images, by index, at the images' own sizes."""
    return {
        index: padded[: shapes[index][0], : shapes[index][1]].contiguous()
        for index, padded in labels.items()
    }
