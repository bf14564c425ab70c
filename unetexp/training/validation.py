"""Validation: the metrics of a model on the whole images of a split.

N batch, I images of a split, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unetexp.compute.distributed import ALONE, Ranks
from unetexp.compute.settings import ComputeSettings, resolved
from unetexp.data import Dataset, Samples
from unetexp.metrics.per_image import ImageScores
from unetexp.metrics.segmentation import SegmentationMetrics
from unetexp.models.encoder_weights import input_normalization, to_input
from unetexp.training.batches import whole_images
from unetexp.training.config import TrainConfig
from unetexp.training.losses import LossFunction

WORST = 4  # how many images with the lowest mIoU keep their label maps


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
) -> Evaluation:
    """The metrics of `model` on whole images at their own size, the same for every trial.

    The label maps of the images `keep` and of the `worst` ones are included. The ranks share
    the images, and each gets the metrics of them all. `compute` replaces the config's settings.
    """
    device = next(model.parameters()).device
    normalization = input_normalization(config.encoder, data.channels)
    # the ranks' counts are gathered with their images' below
    metrics = SegmentationMetrics(
        data.num_classes, class_names=list(data.class_names), sync_on_compute=False
    )
    scores = ImageScores(metrics, keep=keep, worst=worst, keep_matrices=keep_matrices)
    loss_sum = torch.zeros((), device=device)
    compute = compute or resolved(config, device)
    model.eval()
    for indices, raw_images, raw_masks in whole_images(split, config.micro_batch_size, ranks):
        images = raw_images.to(device, non_blocking=True).float() / data.image_max
        masks = raw_masks.to(device, non_blocking=True).long()
        inputs = to_input(images, normalization).contiguous(memory_format=compute.layout)
        with compute.autocast(device):
            logits = model(inputs)
        loss_sum += loss(logits, masks) * len(indices)
        scores.update(indices, logits.argmax(dim=1), masks)
    return _merged(ranks.gather((scores, float(loss_sum))), len(split))


def _merged(parts: list[tuple[ImageScores, float]], images: int) -> Evaluation:
    """The evaluation of `images` images from the counts of all ranks."""
    scores, loss_sum = parts[0]
    for other, other_loss_sum in parts[1:]:
        scores.merge(other)
        loss_sum += other_loss_sum
    computed = scores.metrics.compute()
    metrics = {name: value for name, value in computed.items() if name != "absent"}
    metrics["loss"] = loss_sum / images
    matrices = [scores.matrices[index] for index in sorted(scores.matrices)]
    return Evaluation(
        metrics,
        scores.metrics.confusion_matrix,
        predictions=dict(sorted(scores.predictions.items())),
        image_miou=torch.tensor([scores.image_miou[i] for i in range(images)], dtype=torch.float64),
        worst=scores.worst,
        matrices=torch.stack(matrices) if matrices else None,
    )
