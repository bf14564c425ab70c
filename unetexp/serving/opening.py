"""From a model's address to the engine that serves it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from unetexp.compute.device import device_kind, limit_threads, pick_device
from unetexp.data.collection import RawImage
from unetexp.inference.predictor import Predictor
from unetexp.models.saved_model import load, read_spec
from unetexp.serving.engine import Prediction
from unetexp.tracking.locate import locate


def open_engine(
    address: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    tracking_uri: str | None = None,
) -> PredictorEngine:
    """The engine of the model at `address`. Raises UserError."""
    chosen = pick_device(device)
    limit_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    folder = locate(address, tracking_uri)
    return PredictorEngine(address, Predictor(load(folder), read_spec(folder), chosen))


class PredictorEngine:
    """A model in PyTorch."""

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name, self._predictor = name, predictor
        self.spec = predictor.spec
        self.runtime = f"PyTorch {torch.__version__} on {device_kind(predictor.device)}"

    def group(self, image: RawImage) -> Hashable:
        """See `Engine`."""
        return None

    def predict(
        self, images: Sequence[RawImage], probabilities: Sequence[bool]
    ) -> list[Prediction]:
        """See `Engine`."""
        return [
            self._one(image, wanted) for image, wanted in zip(images, probabilities, strict=True)
        ]

    def _one(self, image: RawImage, wanted: bool) -> Prediction:
        pixels = torch.from_numpy(image)
        if not wanted:
            return Prediction(self._predictor.labels(pixels).numpy(), None)
        found = self._predictor.probabilities(pixels)
        return Prediction(found.argmax(dim=0).to(torch.uint8).numpy(), np.asarray(found))
