"""What an exported file says about itself: stored in the file as JSON, under the key `unetexp`."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from unetexp.component import Component, decode
from unetexp.errors import CheckpointError, ConfigError
from unetexp.models.image_spec import ImageSpec
from unetexp.runtimes.probe import Probe
from unetexp.version import __version__

Format = Literal["onnx", "openvino", "torchscript", "pt2", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]

KEY = "unetexp"
LAYOUT = 1  # increased when files are written that earlier versions would misread


class Description(Component):
    """An exported model: how it is used, and where it comes from."""

    layout: int = Field(LAYOUT, description="version of this description")
    unetexp: str = Field(__version__, description="version that has written the file")
    format: Format = Field(description="which runtime the file is for")
    precision: Precision = Field(description="in which numbers it computes")
    preprocessing: bool = Field(
        False,
        description="false: normalised float images (N, C, H, W) in, logits (N, K, H, W) out; "
        "true: raw images (N, H, W, C) in, label maps (N, H, W) out",
    )
    model: ImageSpec
    size_multiple: int = Field(ge=1, description="the graph pads images to multiples of it")
    receptive_radius_px: int | None = Field(
        None, description="how far a pixel changes logits; null: everywhere"
    )
    network: str = Field("", description="encoder and decoder, in words")
    train: dict[str, Any] | None = Field(None, description="the configuration of its training")
    data_fingerprint: str | None = Field(None, description="of the data that it was trained with")
    run_id: str | None = Field(None, description="of the run in MLflow that trained it")
    commit: str | None = Field(None, description="of the code that trained it")
    weights_sha256: str = Field("", description="of the weights' file")
    runtime: str = Field("", description="the runtime that proved it, with its version")
    probe: Probe | None = Field(None, description="an image and what the file says of it")
    proof: dict[str, Any] | None = Field(
        None, description="its figures on images beside those of the PyTorch model"
    )

    def text(self) -> str:
        """As it is stored in a file."""
        return json.dumps(self.tree())

    @property
    def title(self) -> str:
        """Such as `onnx fp32`."""
        return f"{self.format} {self.precision}"


def read_text(text: str | None, where: str) -> Description:
    """The description that is stored in a file; CheckpointError if it is none of ours, or newer."""
    if text is None:
        raise CheckpointError(
            f"{where}: this file says nothing about its classes and images. Only files that "
            "`unetexp export` has written can be used."
        )
    try:
        tree = json.loads(text)
        layout, version = int(tree.get("layout", 0)), tree.get("unetexp")
    except (ValueError, AttributeError, TypeError):
        raise CheckpointError(
            f"{where}: its description is damaged. Export the model again."
        ) from None
    if layout > LAYOUT:
        raise CheckpointError(
            f"{where}: it was written by unetexp {version}, and this is {__version__}, which "
            "cannot read it. Install that version, or export the model again with this one."
        )
    try:
        description: Description = decode(Description, tree, f"{where}: {KEY}")
    except ConfigError as error:
        raise CheckpointError(
            f"{error} It was written by unetexp {version}, and this is {__version__}: export the "
            "model again."
        ) from None
    return description
