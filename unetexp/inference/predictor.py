"""Prediction on images of any size: in one piece, or in overlapping tiles.

Imports only what a served model's environment has. N views, C channels, K classes, H W image size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from unetexp.compute.tiling import TILE_PX, Block, Tiles, blended
from unetexp.compute.upsampling import block_rows, upsampled
from unetexp.data.resizing import resized_image, working_size
from unetexp.errors import UserError
from unetexp.inference.conforming import full_scale
from unetexp.inference.networks import network_of
from unetexp.models.image_spec import ImageSpec
from unetexp.models.unet import UNet
from unetexp.postprocessing.labels import labels_of
from unetexp.postprocessing.settings import Postprocessing
from unetexp.runtimes.runtime import Runtime

Flip = Literal["left_right", "up_down"]

_AXES: dict[Flip, int] = {"left_right": -1, "up_down": -2}


class Predictor:
    """A model ready for raw images: a U-Net, or an exported one in its runtime.

    Images of up to `tile_px` pixels per side are predicted in one piece, larger ones in tiles of
    that side that overlap by `overlap_px` (by default OVERLAP_PX, or half of a small tile). Both
    are rounded up to multiples of what the encoder needs, mostly 32. Pixels near the cut side of a
    tile are left out and neighbours are blended, so that labels hardly differ from those of the
    whole image; with an overlap of at least twice `receptive_radius_px(model)` the logits are the
    same up to rounding. Where that is None (attention, squeeze-and-excitation), each tile is seen
    by itself, as smaller images are in training, and a `tile_px` as large as the image is exact.
    `flips` are mirror images that are predicted, too: the probabilities of all views are averaged.

    A model that was trained at a working size (`spec.resize`) sees the image at that size; what it
    says is brought back to the image's own.
    """

    def __init__(
        self,
        model: UNet | Runtime,
        spec: ImageSpec,
        device: torch.device | None = None,
        *,
        tile_px: int = TILE_PX,
        overlap_px: int | None = None,
        flips: Sequence[Flip] = (),
    ) -> None:
        """Moves a U-Net to `device` (where it is, by default) and into eval mode.

        A U-Net whose weights lie in channels_last is copied; a runtime stays where it was loaded.

        Raises ConfigError if the overlap is negative or not smaller than the tile, and UserError
        for flips of a file that gives label maps.
        """
        self.spec = spec
        self._post = spec.postprocessing or Postprocessing()
        self._network = network_of(model, spec, device)
        self.device = self._network.device
        if flips:
            self._network.require_probabilities("averaging over flips")
        self._tiles = Tiles.of(
            tile_px, overlap_px, self._network.size_multiple, self._network.receptive_radius_px
        )
        self._views = [
            [_AXES[flip] for flip, used in zip(flips, choice, strict=True) if used]
            for choice in product((False, True), repeat=len(flips))
        ]

    def labels(self, image: Tensor) -> Tensor:
        """The image (C, H, W) uint8 or uint16 -> its label map (H, W) uint8, on the CPU.

        Postprocessed as `spec.postprocessing` says.

        An image of a model that works at another size is scaled to it, and the logits back.

        Raises UserError for an image of another form; `conform` brings it to the model's channels.
        """
        if self._post.changes_labels:  # which needs the whole image
            return self.labels_of(self.logits(image))
        labels = torch.empty(image.shape[-2:], dtype=torch.uint8)
        for block in self.blocks(image):
            labels[block.rows, block.columns] = block.scores.argmax(dim=0).to(torch.uint8)
        return labels

    def logits(self, image: Tensor) -> Tensor:
        """The image (C, H, W) -> (K, H, W) float32, on the CPU.

        With flips these are the logarithms of the averaged probabilities. Raises as `labels`.
        """
        logits = torch.empty(len(self.spec.class_names), *image.shape[-2:])
        for block in self.blocks(image):
            logits[:, block.rows, block.columns] = block.scores
        return logits

    def probabilities(self, image: Tensor) -> Tensor:
        """The image (C, H, W) -> (K, H, W) float32 that sum to 1.

        Raises as `labels`, and UserError where a file gives label maps.
        """
        self.require_probabilities("probabilities")
        return self.shares_of(self.logits(image))

    def labels_of(self, logits: Tensor) -> Tensor:
        """Logits (K, H, W) of a whole image -> labels (H, W) uint8, postprocessed."""
        if not self._post.changes_labels:
            return logits.argmax(dim=0).to(torch.uint8)
        shares = self.shares_of(logits).numpy()
        return torch.from_numpy(labels_of(shares, self._post, self.spec.class_names))

    def shares_of(self, logits: Tensor) -> Tensor:
        """Logits (K, h, w) -> probabilities, by the model's temperature."""
        return (logits / self._post.temperature).softmax(dim=0)

    @property
    def needs_whole_images(self) -> bool:
        """Whether labels of a part depend on the rest of the image, which `blocks` does not see."""
        return self._post.changes_labels

    def require_probabilities(self, purpose: str) -> None:
        """Raise UserError where a file gives label maps, and `purpose` needs more than that."""
        self._network.require_probabilities(purpose)

    def blocks(self, image: Tensor) -> Iterator[Block[Tensor]]:
        """The logits of the image (C, H, W) part by part, if all do not fit into memory.

        The parts do not overlap and cover the image. Raises as `labels`.
        """
        self._check(image)
        size = image.shape[1], image.shape[2]
        if self._working_size(*size) == size:
            return self._blocks(image)
        return self._scaled_back(image, size)

    def padded_size(self, height: int, width: int) -> tuple[int, int] | None:
        """What the network sees of an image; None if it goes through in tiles."""
        working = self._working_size(height, width)
        if max(working) > self._tiles.side_px:
            return None
        multiple = self._network.size_multiple
        padded = (-(-side // multiple) * multiple for side in working)
        return next(padded), next(padded)

    def logits_of(self, images: Sequence[Tensor]) -> list[Tensor]:
        """As `logits`, of images of one `padded_size` in one pass of the network.

        They are padded as the network pads them.
        """
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        working = [self._working_size(*size) for size in sizes]
        multiple = self._network.size_multiple
        given = [
            _padded(self._given(_scaled(image, to)), multiple)
            for image, to in zip(images, working, strict=True)
        ]
        scores = [
            found[:, : to[0], : to[1]]
            for found, to in zip(self._scores(torch.cat(given)), working, strict=True)
        ]
        return [
            torch.cat([part for _, part in upsampled(found, size)], dim=1)
            for found, size in zip(scores, sizes, strict=True)
        ]

    def block_count(self, height: int, width: int) -> int:
        """The number of parts that an image of that size is predicted in."""
        if self._working_size(height, width) != (height, width):
            return -(-height // block_rows(len(self.spec.class_names), width))
        rows, columns = self._tiles.grid(height, width)
        return len(rows) * len(columns)

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        return working_size(self.spec.resize, height, width)

    def _scaled_back(self, image: Tensor, size: tuple[int, int]) -> Iterator[Block[Tensor]]:
        """The logits of an image of another size than the working one, in blocks of rows."""
        working = self._working_size(*size)
        logits = torch.empty(len(self.spec.class_names), *working)
        for block in self._blocks(_scaled(image, working)):
            logits[:, block.rows, block.columns] = block.scores
        for rows, scores in upsampled(logits, size):
            yield Block(rows, slice(0, size[1]), scores)

    def _blocks(self, image: Tensor) -> Iterator[Block[Tensor]]:
        rows, columns = self._tiles.grid(image.shape[1], image.shape[2])
        for block in blended(rows, columns, lambda r, c: self._score(image[:, r, c]).numpy()):
            yield Block(block.rows, block.columns, torch.from_numpy(block.scores))

    def _score(self, tile: Tensor) -> Tensor:
        """A part (C, H, W) of the image -> its logits (K, H, W)."""
        return self._scores(self._given(tile))[0]

    def _given(self, image: Tensor) -> Tensor:
        return self._network.given(image, full_scale(image.itemsize, self.spec))

    @torch.inference_mode()
    def _scores(self, given: Tensor) -> Tensor:
        """What the network is given (N, C, H, W) -> logits (N, K, H, W), or the views' mean."""
        if len(self._views) == 1:
            return self._network(given).cpu()
        views = [
            self._network(given.flip(axes)).flip(axes).log_softmax(dim=1) for axes in self._views
        ]
        return (torch.stack(views).logsumexp(dim=0) - math.log(len(views))).cpu()

    def _check(self, image: Tensor) -> None:
        channels = self.spec.in_channels
        fits = image.ndim == 3 and image.shape[0] == channels and min(image.shape) > 0
        if not fits or image.dtype not in (torch.uint8, torch.uint16):
            raise UserError(
                f"the model takes raw images of shape ({channels}, H, W), uint8 or uint16, and was "
                f"given {tuple(image.shape)} {image.dtype}."
            )


def _scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return (
        image if image.shape[1:] == size else torch.from_numpy(resized_image(image.numpy(), size))
    )


def _padded(given: Tensor, multiple: int) -> Tensor:
    """(1, C, H, W) with its last rows and columns repeated up to multiples of that."""
    rows, columns = (
        torch.arange(-(-side // multiple) * multiple, device=given.device).clamp(max=side - 1)
        for side in given.shape[2:]
    )
    return given.index_select(2, rows).index_select(3, columns)
