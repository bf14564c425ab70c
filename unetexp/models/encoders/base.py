"""What every encoder has: its settings, and a feature pyramid that can be frozen from the front.

Letters: N batch, C channels of the image, H W its height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from unetexp.component import Component
from unetexp.errors import ConfigError, not_a_choice
from unetexp.models.folding import FoldedParts

FreezeLevel = Literal["none", "stem", "stage1", "stage2", "stage3", "all"]

WEIGHTS_NAMES = ("imagenet", "packaged", "auto", "none")
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")


class EncoderSettings(Component):
    """What the encoders of all families share. `kind` and `name` are the family's own."""

    own_fields: ClassVar[frozenset[str]] = frozenset({"name"})

    kind: str
    name: str
    weights: str = Field(
        "imagenet",
        description="imagenet; packaged: those of an installed Python package; auto: imagenet if "
        "available, else packaged, else none; none: random; or the path of a .pth, .pt or "
        ".safetensors file",
    )
    freeze: FreezeLevel = Field("none", description="frozen up to and including this part")
    thaw_epoch: int | None = Field(
        None, ge=1, description="first epoch, counted from 1, in which nothing is frozen any more"
    )
    lr_scale: float = Field(
        1.0, gt=0, le=1, description="the encoder's learning rate as a fraction of the decoder's"
    )

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, weights: str) -> str:
        if weights in WEIGHTS_NAMES or PurePath(weights).suffix.lower() in WEIGHTS_SUFFIXES:
            return weights
        sentence = not_a_choice("weights", weights, WEIGHTS_NAMES).removeprefix("weights: ")
        raise ValueError(f"{sentence}, or the path of a {', '.join(WEIGHTS_SUFFIXES)} file")

    @model_validator(mode="after")
    def _thaws_what_is_frozen(self) -> Self:
        if self.thaw_epoch is not None and self.freeze == "none":
            raise ValueError(
                f"thaw_epoch is {self.thaw_epoch}, but freeze is 'none', so there is nothing to "
                "thaw. Leave thaw_epoch out or set freeze to one of: "
                f"{', '.join(get_args(FreezeLevel))}"
            )
        return self

    @property
    def levels(self) -> tuple[str, ...]:
        """What `freeze` may be, each level freezing what the one before it does, or more."""
        return get_args(FreezeLevel)

    def frozen_in(self, epoch: int) -> str:
        """The level that is frozen in `epoch`, counted from 1."""
        thawed = self.thaw_epoch is not None and epoch >= self.thaw_epoch
        return "none" if thawed else self.freeze

    @property
    def full_name(self) -> str:
        """Kind and name: families share some names, such as resnet50."""
        return f"{self.kind}/{self.name}"

    @property
    def mean_and_std(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Of RGB images scaled to 0..1, as the pretrained weights were trained with."""
        raise NotImplementedError

    def build(self, in_channels: int) -> FeatureEncoder:
        """The encoder with random weights for images of so many channels, nothing frozen."""
        raise NotImplementedError


class FeatureEncoder(nn.Module):
    """A network without its classifier that returns the features of every stride.

    A family's subclass sets `name`, `channels`, `parts` and `first_convolutions`, and implements
    `forward`.
    """

    strides: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 16, 32)

    name: str
    channels: tuple[int, ...]
    """Channels of the feature of each stride, first those of the image; 0: there is none."""
    parts: Mapping[str, tuple[str, ...]]
    """The levels of freezing, in order, and the names of the modules and parameters that each
    freezes beyond the level before it."""
    first_convolutions: tuple[str, ...]
    """The names of the convolutions that see the image."""
    always_learning: tuple[str, ...] = ()
    """The names of modules that no level freezes: no pretrained weights have them."""
    size_multiple: int = 32
    """The model pads images until both sides are multiples of this."""
    frozen: str = "none"
    undecayed: frozenset[str] = frozenset()
    """Names of parameters without weight decay, besides those of one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.folded = FoldedParts()  # of frozen parts; a family may leave it unused

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> six features: (N, channels[i], H / strides[i], W / strides[i]).

        The first feature is the image. It may have channels of zeros behind the C that count.
        Frozen stages have no graph, unless the image itself needs gradients.
        """
        raise NotImplementedError

    @property
    def longest_path(self) -> list[nn.Module] | None:
        """The layers on the longest way from the image to the deepest feature, in order.

        None if a feature depends on the whole image: through attention, squeeze-and-excitation,
        or in a way that is not known.
        """
        return None

    @property
    def deepest(self) -> list[nn.Module]:
        """The modules that compute the feature of the greatest stride."""
        *_, last = self.parts.values()
        return [self.get_submodule(name) for name in last]

    def lr_factor(self, parameter: str) -> float:
        """The learning rate of the parameter of this name, as a fraction of the encoder's."""
        return 1.0

    def freeze(self, level: str) -> None:
        """Freeze the parts up to and including `level` and thaw the rest; "none" thaws all.

        Frozen parameters get no gradients, and batch norm and dropout there stay in eval mode
        after `train()`. Raises ConfigError for an unknown level.
        """
        if level not in self.parts:
            raise ConfigError(not_a_choice("encoder.freeze", level, self.parts))
        self.frozen = level
        self.folded.clear()
        self.requires_grad_(True)
        self.train(self.training)
        for name in self._frozen_parts():
            self.get_part(name).requires_grad_(False)
        for parameter in self.parameters():
            if not parameter.requires_grad:
                parameter.grad = None  # or an optimiser would apply old gradients

    def train(self, mode: bool = True) -> Self:
        """As for any module, but frozen parts stay in eval mode."""
        super().train(mode)
        self.folded.clear()
        for name in self._frozen_parts():
            part = self.get_part(name)
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.folded.clear()  # `to(...)` changes tensors in a way that they do not count
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def get_part(self, name: str) -> nn.Module | nn.Parameter:
        """The module or parameter of this dotted name."""
        path, _, last = name.rpartition(".")
        part = getattr(self.get_submodule(path), last)
        assert isinstance(part, nn.Module | nn.Parameter)
        return part

    def _frozen_parts(self) -> list[str]:
        levels = list(self.parts)
        frozen = levels[: levels.index(self.frozen) + 1]
        return [name for level in frozen for name in self.parts[level]]
