"""An exported file as a torch module, so that it is evaluated as every model is.

N batch, C channels, K classes, H W image size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unetexp.models.image_spec import ImageSpec
from unetexp.runtimes.runtime import Runtime


class RuntimeNetwork(nn.Module):
    """Normalised images (N, C, H, W) -> logits (N, K, H, W), on the device that they are on.

    A file with preprocessing gets the raw images back that they were made of, and its label maps
    become scores: 1 for the label, else 0.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime
        self.size_multiple = runtime.description.size_multiple
        self.receptive_radius_px = runtime.description.receptive_radius_px
        self._device = nn.Parameter(torch.empty(0), requires_grad=False)  # `to` moves it

    def forward(self, images: Tensor) -> Tensor:
        given = images.float().cpu().contiguous()
        if self.runtime.description.preprocessing:
            return one_hot_scores(self.runtime, self._raw(given)).to(images.device)
        return torch.from_numpy(self.runtime(given.numpy())).to(images.device)

    def _raw(self, images: Tensor) -> Tensor:
        """Exactly the pixels, as each normalised value is nearest to one of them."""
        spec = self.runtime.description.model
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in spec.normalization)
        raw = ((images * std + mean) * spec.image_max).round().clamp(0, spec.image_max)
        return raw.to(raw_dtype(spec))


def raw_dtype(spec: ImageSpec) -> torch.dtype:
    """Of the images that a model was trained on."""
    return torch.uint8 if spec.image_max <= torch.iinfo(torch.uint8).max else torch.uint16


def one_hot_scores(runtime: Runtime, raw: Tensor) -> Tensor:
    """Raw images (N, C, H, W) -> (N, K, H, W) float32: 1 for the label given, else 0."""
    labels = runtime(raw.permute(0, 2, 3, 1).contiguous().numpy())
    classes = len(runtime.description.model.class_names)
    return F.one_hot(torch.from_numpy(labels).long(), classes).permute(0, 3, 1, 2).float()
