"""`unetexp.load`: a trained model by its address, ready to predict, whatever runtime it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unetexp.compute.device import pick_device
from unetexp.compute.tiling import TILE_PX
from unetexp.data.collection import RawImage
from unetexp.data.reading.image_decoding import read_image
from unetexp.data.reading.input_form import AS_STORED
from unetexp.errors import ConfigError
from unetexp.inference.conforming import conform
from unetexp.inference.payloads import Labels, read_payload
from unetexp.inference.predictor import Flip, Predictor
from unetexp.models import saved_model
from unetexp.models.image_spec import ImageSpec
from unetexp.models.saved_model import CONFIG, read_description, read_spec
from unetexp.models.unet import UNet
from unetexp.postprocessing.uncertainty import entropy_of
from unetexp.runtimes.description import Description
from unetexp.runtimes.flavors import PYTORCH, file_of_flavor
from unetexp.runtimes.network import RuntimeNetwork
from unetexp.runtimes.runtime import Runtime, format_of, open_runtime

log = logging.getLogger(__name__)

Probabilities = NDArray[np.float32]


class LoadedModel:
    """A trained model that takes images: in PyTorch, or an exported file in its runtime.

    An image is the path of an image file, an array (H, W, C) or (H, W) of uint8 or uint16, or the
    bytes of a PNG or JPEG file. A list may mix them and their sizes; a batch is one array
    (N, H, W, C). What the network of a PyTorch model has (`state_dict`, `parameters`, ...) is had
    through this object, too.
    """

    def __init__(
        self,
        network: UNet | Runtime,
        spec: ImageSpec,
        record: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        """`record` holds `train` and `data_fingerprint`, of its training."""
        self.network = network
        self.spec = spec
        self.record = record
        self.device = device  # that PyTorch computes on
        self.predictor = self.predictor_with()

    def predictor_with(
        self, *, tile_px: int = TILE_PX, overlap_px: int | None = None, flips: Sequence[Flip] = ()
    ) -> Predictor:
        """A predictor with other tiles, or one that averages over mirror images. Raises as that."""
        return Predictor(
            self.network,
            self.spec,
            self.device,
            tile_px=tile_px,
            overlap_px=overlap_px,
            flips=flips,
        )

    def module(self) -> nn.Module:
        """Normalised images (N, C, H, W) -> logits (N, K, H, W): what is evaluated."""
        if isinstance(self.network, Runtime):
            return RuntimeNetwork(self.network)
        return self.network

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their labels."""
        return self.spec.class_names

    @property
    def runtime(self) -> str:
        """pytorch, onnx, openvino, torchscript, pt2 or tensorrt."""
        return self.description.format if self.description else PYTORCH

    @property
    def description(self) -> Description | None:
        """What an exported file says about itself; None of a PyTorch model."""
        return self.network.description if isinstance(self.network, Runtime) else None

    def predict(self, images: Any) -> Labels | list[Labels]:
        """Label maps (H, W) uint8: one of one image, a list of a list, (N, H, W) of a batch.

        Raises UserError, and DataError for a file that is no image.
        """
        labels: Labels | list[Labels] = self._answer(
            images, lambda image: self.predictor.labels(image).numpy()
        )
        return labels

    def probabilities(self, images: Any) -> Probabilities | list[Probabilities]:
        """Of each class, (K, H, W) float32: in the form of `predict`; raises as that does.

        UserError also for a file that was exported with its preprocessing: it gives label maps.
        """
        found: Probabilities | list[Probabilities] = self._answer(
            images, lambda image: self.predictor.probabilities(image).numpy()
        )
        return found

    def uncertainty(self, images: Any) -> Probabilities | list[Probabilities]:
        """How unsure it is of each pixel, (H, W) float32 from 0 to 1: in the form of `predict`.

        The entropy of the probabilities, averaged over the image and its mirror images. Raises as
        `probabilities`.
        """
        predictor = self.predictor_with(flips=trained_flips(self.record))
        found: Probabilities | list[Probabilities] = self._answer(
            images, lambda image: entropy_of(predictor.probabilities(image).numpy())
        )
        return found

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, C, H, W) float32 -> logits (N, K, H, W), as the network itself."""
        if isinstance(self.network, Runtime):
            return RuntimeNetwork(self.network).forward(images)
        logits: torch.Tensor = self.network(images)
        return logits

    def __getattr__(self, name: str) -> Any:
        network = self.__dict__.get("network")
        if network is None or isinstance(network, Runtime):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(network, name)

    def _answer(self, images: Any, one: Callable[[torch.Tensor], NDArray[Any]]) -> Any:
        form = self.spec.input or AS_STORED
        if isinstance(images, str | Path):
            return self._one(read_image(Path(images).expanduser(), form), one)
        if isinstance(images, list | tuple) and any(isinstance(i, str | Path) for i in images):
            return [self._answer(image, one) for image in images]
        payload = read_payload(images, self.spec)
        return payload.answer([self._one(image, one) for image in payload.images])

    def _one(self, image: RawImage, one: Callable[[torch.Tensor], NDArray[Any]]) -> NDArray[Any]:
        fitting, warnings = conform(image, self.spec)
        for warning in warnings:
            log.warning("an image %s", warning)
        return one(torch.from_numpy(fitting))


def load(
    where: str | Path,
    *,
    device: str | torch.device = "auto",
    flavor: str | None = None,
    tracking_uri: str | None = None,
) -> LoadedModel:
    """The model at `where`: models:/NAME@ALIAS, a run's id, a model's folder or an exported file.

    `device` is auto, cpu or cuda. `flavor` is `pytorch` or the name of an export that a promoted
    model has, such as `openvino-int8`; None: what it was promoted with. Raises CheckpointError
    where there is no model or it is damaged, ConfigError for a flavor that it does not have, and
    UserError for a runtime that is not installed.
    """
    if is_exported_file(where):
        if flavor is not None:
            raise ConfigError(f"flavor {flavor}: {where} is one exported file. Leave it out.")
        return _exported(Path(where).expanduser(), device)
    chosen = device if isinstance(device, torch.device) else pick_device(device)
    folder = model_folder(where, tracking_uri)
    file = file_of_flavor(folder, flavor)
    if file is not None:
        return _exported(file, device)
    network = saved_model.load(folder)
    return LoadedModel(network, read_spec(folder), read_description(folder), chosen)


def _exported(file: Path, device: str | torch.device) -> LoadedModel:
    """An exported file in its runtime."""
    runtime = open_runtime(file, str(device))
    described = runtime.description
    record = {"train": described.train, "data_fingerprint": described.data_fingerprint}
    return LoadedModel(runtime, described.model, record, torch.device("cpu"))


def trained_flips(record: Mapping[str, Any]) -> list[Flip]:
    """The mirror images that a model has learnt from; left-right if it has from none."""
    augment = (record.get("train") or {}).get("augment", {})
    names: dict[str, Flip] = {"hflip": "left_right", "vflip": "up_down"}
    return [flip for name, flip in names.items() if augment.get(name)] or ["left_right"]


def is_exported_file(where: str | Path) -> bool:
    """Whether it is the path of a file of one of the runtimes."""
    path = Path(where).expanduser()
    return path.is_file() and format_of(path) is not None


def model_folder(where: str | Path, tracking_uri: str | None = None) -> Path:
    """The folder of the model at an address; CheckpointError if there is none."""
    folder = Path(where).expanduser()
    if (folder / CONFIG).exists():
        return folder
    from unetexp.tracking.locate import locate  # MLflow is not needed for a folder

    return locate(str(where), tracking_uri)
