"""A model that is served in PyTorch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

import torch

from unetexp.compute.device import device_kind, limit_threads, pick_device
from unetexp.data.collection import RawImage
from unetexp.inference.predictor import Predictor
from unetexp.loading import load
from unetexp.runtimes.flavors import PYTORCH
from unetexp.serving.engine import Prediction


def torch_engine(folder: Path, name: str, device: str, threads: int | None) -> TorchEngine:
    """The engine of the weights in `folder`, by its `name`. Raises UserError."""
    chosen = pick_device(device)
    limit_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(folder, device=chosen, flavor=PYTORCH)
    return TorchEngine(name, loaded.predictor)


class TorchEngine:
    """See `Engine`."""

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name, self._predictor = name, predictor
        self.spec = predictor.spec
        self.runtime = f"PyTorch {torch.__version__} on {device_kind(predictor.device)}"

    def group(self, image: RawImage) -> Hashable:
        """See `Engine`."""
        return self._predictor.padded_size(image.shape[1], image.shape[2])

    def predict(
        self, images: Sequence[RawImage], probabilities: Sequence[bool]
    ) -> list[Prediction]:
        """See `Engine`."""
        if len(images) == 1:
            return [self._one(torch.from_numpy(images[0]), probabilities[0])]
        found = self._predictor.logits_of([torch.from_numpy(image) for image in images])
        return [
            self._prediction(scores, wanted)
            for scores, wanted in zip(found, probabilities, strict=True)
        ]

    def _one(self, image: torch.Tensor, wanted: bool) -> Prediction:
        if wanted:
            return self._prediction(self._predictor.logits(image), wanted)
        return Prediction(self._predictor.labels(image).numpy(), None)

    def _prediction(self, logits: torch.Tensor, probabilities: bool) -> Prediction:
        labels = self._predictor.labels_of(logits).numpy()
        shares = self._predictor.shares_of(logits).numpy() if probabilities else None
        return Prediction(labels, shares)
