"""What a predictor computes with: a U-Net as it is served, or an exported file in its runtime.

N batch, C channels, K classes, H W image size.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from unetexp.compute.serving import laid_out_to_serve, served_logits
from unetexp.errors import UserError
from unetexp.models.image_spec import ImageSpec
from unetexp.models.receptive_field import receptive_radius_px
from unetexp.models.unet import UNet
from unetexp.models.weights.resolution import to_input
from unetexp.runtimes.network import one_hot_scores, raw_dtype
from unetexp.runtimes.runtime import Runtime


class Network(Protocol):
    """From what `given` has made of raw images to their logits."""

    @property
    def device(self) -> torch.device:
        """Where it takes its input."""

    @property
    def size_multiple(self) -> int:
        """Sides of tiles are multiples of it."""

    @property
    def receptive_radius_px(self) -> int | None:
        """How far a pixel changes logits; None: everywhere."""

    def given(self, image: Tensor, full_scale: int) -> Tensor:
        """A raw image (C, H, W), whose `full_scale` is 1.0, as a batch of one (1, C, H, W)."""

    def __call__(self, given: Tensor) -> Tensor:
        """Such a batch (N, C, H, W) -> logits (N, K, H, W) float32."""

    def require_probabilities(self, purpose: str) -> None:
        """Raise UserError where the scores are no logits but label maps."""


def network_of(
    model: UNet | Runtime, spec: ImageSpec, device: torch.device | None = None
) -> Network:
    """`model` ready to predict, a U-Net on `device`."""
    if not isinstance(model, Runtime):
        return _Torch(model, spec, device or next(model.parameters()).device)
    return _LabelMaps(model, spec) if model.description.preprocessing else _Exported(model, spec)


class _Torch:
    """A U-Net, in eval mode, with contiguous weights."""

    def __init__(self, model: UNet, spec: ImageSpec, device: torch.device) -> None:
        self._model = laid_out_to_serve(model.to(device).eval())
        self._spec, self.device = spec, device
        self.size_multiple = model.encoder.size_multiple
        self.receptive_radius_px = receptive_radius_px(model)

    def given(self, image: Tensor, full_scale: int) -> Tensor:
        return to_input(
            (image.to(self.device).float() / full_scale)[None], self._spec.normalization
        )

    def __call__(self, given: Tensor) -> Tensor:
        return served_logits(self._model, given)

    def require_probabilities(self, purpose: str) -> None:
        """It has them."""


class _Exported:
    """A file that takes normalised images."""

    def __init__(self, runtime: Runtime, spec: ImageSpec) -> None:
        self._runtime, self._spec = runtime, spec
        self.device = torch.device("cpu")  # the runtime takes arrays from there
        self.size_multiple = runtime.description.size_multiple
        self.receptive_radius_px = runtime.description.receptive_radius_px

    def given(self, image: Tensor, full_scale: int) -> Tensor:
        return to_input((image.float() / full_scale)[None], self._spec.normalization)

    def __call__(self, given: Tensor) -> Tensor:
        return torch.from_numpy(self._runtime(given.contiguous().numpy())).float()

    def require_probabilities(self, purpose: str) -> None:
        """It has them."""


class _LabelMaps(_Exported):
    """A file that takes raw images and gives label maps: scores are 1 for the label, else 0."""

    def given(self, image: Tensor, full_scale: int) -> Tensor:
        trained = self._spec.image_max
        if full_scale == trained:
            return image[None]
        scaled = image.double() * (trained / full_scale)
        return scaled.round().to(raw_dtype(self._spec))[None]

    def __call__(self, given: Tensor) -> Tensor:
        return one_hot_scores(self._runtime, given)

    def require_probabilities(self, purpose: str) -> None:
        raise UserError(
            f"{self._runtime.path}: {purpose}: this file was exported with --preprocessing and "
            "gives label maps only. Export the model without it, or use the model itself."
        )
