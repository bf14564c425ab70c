"""Weights of the original `UNetWithResnet50Encoder`, loaded into the classic decoder's U-Net."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from unetexp.errors import ConfigError
from unetexp.models.unet import UNet
from unetexp.models.weights.state_dict_check import as_state_dict, check_state_dict

_CONVOLUTION = re.compile(r"(bridge\.bridge|up_blocks)\..*\bconv\.weight$")
_ADVICE = "Create one with create_segmentation_model(num_classes, pretrained=False)."


def load_original_weights(model: UNet, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict of the original `UNetWithResnet50Encoder` strictly.

    `model` needs the encoder resnet50, the decoder classic, conv_transpose and three channels. The
    original's convolutions have a bias before batch norm, ours have none: each bias is subtracted
    from the running mean, so in eval mode the logits equal the original's up to rounding, and in
    train mode batch norm removes it anyway. Raises ConfigError for a model of another kind and
    CheckpointError, with the model unchanged, for names or shapes that differ.
    """
    _check_kind(model)
    names = {name: original_name(name) for name in model.state_dict()}
    expected = {names[name]: tensor.shape for name, tensor in model.state_dict().items()}
    biases = {
        name.removesuffix("weight") + "bias": torch.Size(shape[:1])
        for name, shape in expected.items()
        if _CONVOLUTION.search(name)
    }
    given = as_state_dict(state_dict, "the original's state dict")
    check_state_dict(given, expected | biases, "the original's state dict")
    loaded = {name: given[old] for name, old in names.items() if old in given}
    for name, tensor in loaded.items():
        bias = names[name].replace(".bn.running_mean", ".conv.bias")
        if bias in biases:
            loaded[name] = tensor.double() - given[bias].double()
    model.load_state_dict(loaded)


def original_name(name: str) -> str:
    """The original's name for one of our state dict's names."""
    for ours, theirs in (
        (r"^encoder\.conv1\.", "input_block.0."),
        (r"^encoder\.bn1\.", "input_block.1."),
        (r"^bridge\.", "bridge.bridge."),
        (r"^head\.", "out."),
    ):
        name = re.sub(ours, theirs, name)
    return re.sub(r"^encoder\.layer(\d)\.", lambda stage: f"down_blocks.{int(stage[1]) - 1}.", name)


def _check_kind(model: UNet) -> None:
    if not isinstance(model, UNet):
        raise ConfigError(f"A {type(model).__name__} is not a UNet of this package. {_ADVICE}")
    given = (
        model.encoder.name,
        model.decoder.kind,
        model.decoder.upsampling,
        model.encoder.channels[0],
    )
    if given != ("resnet50", "classic", "conv_transpose", 3):
        raise ConfigError(
            "The original's weights fit a U-Net with encoder resnet50, decoder classic, upsampling "
            "conv_transpose and 3 channels; this one has "
            f"{given[0]}, {given[1]}, {given[2]} and {given[3]}. "
            f"{_ADVICE}"
        )
