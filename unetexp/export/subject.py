"""What is exported: a trained network as a graph for any size, with or without preprocessing.

N batch, C channels, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from unetexp.errors import UserError
from unetexp.models.image_spec import ImageSpec
from unetexp.models.unet import UNet
from unetexp.runtimes.description import Precision
from unetexp.runtimes.network import raw_dtype

_EXAMPLE_PX = (70, 50)  # no multiples of 32: the padding is exported, too


class WithPreprocessing(nn.Module):
    """Raw images (N, H, W, C), uint8 or uint16 -> label maps (N, H, W) uint8."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, spec: ImageSpec) -> None:
        super().__init__()
        self.model = model
        self.image_max = spec.image_max
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.permute(0, 3, 1, 2).float() / self.image_max
        labels: Tensor = self.model((scaled - self.mean) / self.std).argmax(dim=1)
        return labels.to(torch.uint8)


@dataclass(frozen=True)
class Subject:
    """A network to be written to a file; what it takes and gives as in `Description`."""

    model: UNet
    spec: ImageSpec
    precision: Precision
    preprocessing: bool = False
    calibration: Sequence[NDArray[Any]] = ()  # inputs of the graph, a batch of one each; for int8

    @cached_property
    def network(self) -> nn.Module:
        """In eval mode, fp32, on the CPU: the graph's input -> its output."""
        model = self.model.cpu().float().eval()
        return (WithPreprocessing(model, self.spec) if self.preprocessing else model).eval()

    @property
    def input_name(self) -> str:
        return "images"

    @property
    def output_name(self) -> str:
        return "labels" if self.preprocessing else "logits"

    @property
    def size_axes(self) -> tuple[int, int]:
        """The axes of height and width in the input."""
        return (1, 2) if self.preprocessing else (2, 3)

    @cached_property
    def example(self) -> Tensor:
        """A batch of two inputs; one would be taken for a constant."""
        generator = torch.Generator().manual_seed(0)
        height, width = _EXAMPLE_PX
        channels = self.spec.in_channels
        if not self.preprocessing:
            return torch.randn(2, channels, height, width, generator=generator)
        raw = torch.rand(2, height, width, channels, generator=generator) * self.spec.image_max
        return raw.to(raw_dtype(self.spec))

    @cached_property
    def program(self) -> ExportedProgram:
        """The graph, of any batch, height and width; UserError where it would be of one size."""
        return self.exported(self.network)

    def exported(self, network: nn.Module, *, strict: bool = False) -> ExportedProgram:
        """As `program`, of another form of the network."""
        height, width = self.size_axes
        dynamic = {0: Dim.AUTO, height: Dim.AUTO, width: Dim.AUTO}
        with torch.no_grad():
            program = torch.export.export(
                network, (self.example,), dynamic_shapes=(dynamic,), strict=strict
            )
        (name,) = program.graph_signature.user_inputs
        shape = next(n for n in program.graph.nodes if n.name == name).meta["val"].shape
        if fixed := [str(shape[axis]) for axis in dynamic if isinstance(shape[axis], int)]:
            raise self.of_one_size(", ".join(fixed))
        return program

    def of_one_size(self, size: str) -> UserError:
        """The error for a network whose graph depends on the size of the example."""
        return UserError(
            f"the encoder {self.model.encoder.name} computes differently at each size, so that "
            f"its graph would take images of one size only ({size}), and a file "
            "takes any. Choose another encoder, or serve the model itself with PyTorch."
        )
