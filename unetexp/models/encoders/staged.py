"""Encoders that are a chain: each level of freezing is computed from the one before it.

Letters: N batch, C channels, H W height and width of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unetexp.models.encoders.base import FeatureEncoder
from unetexp.models.layout import computed_dtype, is_exported


class StagedEncoder(FeatureEncoder):
    """An encoder whose `parts` are modules that follow each other, a feature after each level.

    Frozen stages have no graph and batch norm folded.
    """

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> six features."""
        _, *levels = self.parts
        needs_graph = image.requires_grad or is_exported()
        frozen = 0 if needs_graph else list(self.parts).index(self.frozen)
        features, state = [image], image
        for number, level in enumerate(levels):
            if number < frozen:
                state = self._frozen_stage(level, state)
            else:
                state = self._stage(level, self._modules_of(level), state)
            features.append(self._feature(level, state, image))
        return features

    def _modules_of(self, level: str) -> list[nn.Module]:
        return [self.get_submodule(name) for name in self.parts[level]]

    @torch.no_grad()
    def _frozen_stage(self, level: str, state: Tensor) -> Tensor:
        dtype = computed_dtype(next(self.parameters()))
        modules = self.folded.of(level, self._modules_of(level), dtype)
        return self._stage(level, modules, state)

    def _stage(self, level: str, modules: Sequence[nn.Module], state: Tensor) -> Tensor:
        """What the stage makes of the stage before it."""
        for module in modules:
            state = module(state)
        return state

    def _feature(self, level: str, state: Tensor, image: Tensor) -> Tensor:
        """The feature (N, channels, H / stride, W / stride) that a stage's result stands for."""
        return state
