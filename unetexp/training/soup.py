"""A soup: the weights of models of several seeds, averaged, with batch norm of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from unetexp.compute.settings import resolved
from unetexp.data import Dataset
from unetexp.data.folded import rounds
from unetexp.models.ensemble import Ensemble
from unetexp.models.merging import averaged_weights
from unetexp.models.unet import UNet, freeze_encoder
from unetexp.training.batches.train_batches import TrainBatches
from unetexp.training.config import TrainConfig
from unetexp.training.loop import freeze_level, precise_statistics

_LEAST_IMAGES = 32  # also where training validates with running averages


def soup(folders: Sequence[Path], config: TrainConfig, data: Dataset, device: torch.device) -> UNet:
    """The average of the models in `folders`, in eval mode on `device`.

    They were trained by `config`, but for the seed, on `data`. The statistics of batch norm belong
    to the weights they were computed with; those of the average are computed from training images.
    """
    model = averaged_weights(folders).to(device)
    parts = [model]
    if isinstance(model, Ensemble):
        parts = [cast("UNet", part) for part in model.members]
    for each, part in zip(rounds(data), parts, strict=True):
        freeze_encoder(part, freeze_level(config, config.epochs))
        compute = resolved(config, device)
        part.to(memory_format=compute.layout)
        batches = TrainBatches(each["train"], config, device=device)
        images = max(config.batch_norm_images, _LEAST_IMAGES)
        precise_statistics(config, each, part, batches, compute, device, images)
    return model.eval()
