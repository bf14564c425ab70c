"""Small models with data, to be exported: random weights whose classes all occur."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support.data_folders import write_folder_dataset
from unetexp.component import decode
from unetexp.data import Dataset, open_dataset
from unetexp.export.subject import Subject
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import Encoder
from unetexp.models.image_spec import ImageSpec
from unetexp.models.saved_model import model_spec, save_model
from unetexp.models.unet import UNet, build_unet
from unetexp.training.config import TrainConfig, decode_config

CLASSES = ("back", "cell", "wall")
TINY = {"kind": "timm", "name": "test_efficientnet"}


def config_on(root: Path, encoder=TINY, **changes) -> TrainConfig:
    """A configuration of training on the folder `root`."""
    tree = {
        "data": {"kind": "folder", "root": str(root)},
        "encoder": {"weights": "none", **encoder},
        "augment": {"crop_px": 32},
        "epochs": 1,
        "batch_size": 2,
    }
    return decode_config(tree, changes)


def lively(model: UNet, channels: int = 3) -> UNet:
    """With batch-norm statistics of data, and a head whose classes are far apart."""
    torch.manual_seed(1)
    with torch.no_grad():
        model.train()
        for _ in range(3):
            logits = model(torch.randn(4, channels, 64, 64))
        model.head.bias -= logits.mean(dim=(0, 2, 3))
        model.head.weight *= 3 / logits.std()
        model.head.bias *= 3 / logits.std()
    return model.eval()


def write_data(root: Path, splits={"train": 4, "val": 3}, size=(40, 48)) -> Path:  # noqa: B006
    return write_folder_dataset(root, splits, size, len(CLASSES), class_names=CLASSES, seed=3)


def write_model(folder: Path, config: TrainConfig, data: Dataset | None = None) -> Path:
    """A model of that configuration in `folder`."""
    folder.mkdir(parents=True)
    data = data or open_dataset(config.data)
    torch.manual_seed(0)
    model = lively(model_spec(config, data).build(), data.channels)
    save_model(folder, model, config, data, epoch=1)
    return folder


def subject_of(
    encoder=TINY, decoder="slim", upsampling="conv_transpose", *, precision="fp32", **options
) -> Subject:
    """A network to be written."""
    torch.manual_seed(0)
    shape = Decoder(kind=decoder, upsampling=upsampling)
    start = decode(Encoder, {"weights": "none", **encoder}, "encoder")
    channels = options.pop("in_channels", 3)
    model = lively(build_unet(start, shape, len(CLASSES), channels), channels)
    return Subject(model, image_spec(channels, options.pop("image_max", 255)), precision, **options)


def image_spec(channels=3, image_max=255) -> ImageSpec:
    return ImageSpec(
        class_names=CLASSES,
        in_channels=channels,
        image_max=image_max,
        mean=(0.5, 0.4, 0.3, 0.2)[:channels],
        std=(0.2, 0.25, 0.3, 0.2)[:channels],
    )
