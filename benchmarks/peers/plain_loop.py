"""The loop that most people start with, as a peer: 30 lines and no settings.

segmentation_models_pytorch's U-Net without pretrained weights, AdamW with a constant rate, random
crops and nothing else. N batch, C channels, P crop side.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from unetexp.data import Dataset
from unetexp.metrics.segmentation import SegmentationMetrics
from unetexp.models.weights.resolution import input_normalization, to_input
from unetexp.training.config import TrainConfig

_CPU = torch.device("cpu")


def plain_loop(config: TrainConfig, data: Dataset) -> list[dict[str, float]]:
    """val/miou after each epoch, at the encoder, rate, crop, batch and epochs of `config`."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(config.seed)
    model = smp.Unet(
        config.encoder.name,
        encoder_weights=None,
        in_channels=data.channels,
        classes=data.num_classes,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr)
    loss = torch.nn.CrossEntropyLoss(ignore_index=255)
    normalization = input_normalization(config.encoder, data.channels)
    rng, train, history = np.random.default_rng(config.seed), data["train"], []
    started = time.process_time()
    for _ in range(config.epochs):
        model.train()
        losses = []
        order = rng.permutation(len(train))
        for chosen in np.split(order, range(config.batch_size, len(order), config.batch_size)):
            if len(chosen) < config.batch_size:
                continue
            crops = [random_crop(data, int(index), config.augment.crop_px, rng) for index in chosen]
            images = torch.stack([image for image, _ in crops]).float() / data.image_max
            masks = torch.stack([mask for _, mask in crops]).long()
            value = loss(model(to_input(images, normalization)), masks)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(value.item())
        history.append(
            {
                "train/loss": float(np.mean(losses)),
                "val/miou": validate(model, data, normalization),
                "cpu_s": time.process_time() - started,
            }
        )
    return history


def random_crop(data: Dataset, index: int, side: int, rng: np.random.Generator):
    """(C, P, P) and (P, P) of a training image."""
    height, width = data["train"].shapes[index]
    top, left = (int(rng.integers(0, max(1, extent - side + 1))) for extent in (height, width))
    return data["train"].window(index, top, left, side, side)


@torch.no_grad()
def validate(
    model: torch.nn.Module,
    data: Dataset,
    normalization,
    split: str = "val",
    device: torch.device = _CPU,
) -> float:
    """mIoU on the whole images of a split, padded to multiples of 32."""
    model.eval()
    metrics = SegmentationMetrics(data.num_classes)
    for index in range(len(data[split])):
        sample = data[split][index]
        height, width = sample.mask.shape
        image = to_input(sample.image[None].float() / data.image_max, normalization)
        padded = torch.nn.functional.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
        labels = model(padded.to(device))[:, :, :height, :width].argmax(1).cpu()
        metrics.update(labels, sample.mask[None].long())
    return float(metrics.compute()["miou"])
