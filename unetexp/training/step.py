"""One optimiser step: micro-batches in, the loss of the batch out.

Nothing in it waits for the device. N images, C channels, K classes, H W crop size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from unetexp.compute.distributed import ALONE, Ranks
from unetexp.data import Dataset
from unetexp.models.deep_supervision import AUXILIARY_STRIDES, labels_at
from unetexp.models.weights.resolution import Normalization
from unetexp.training.batches.train_batches import RawBatch, augmented
from unetexp.training.config import TrainConfig
from unetexp.training.losses import LossFunction
from unetexp.training.optim import start_momentum
from unetexp.training.seen_step import SeenStep
from unetexp.training.state import TrainState


class TrainStep:
    """The steps of one epoch; made anew after parts of the model were frozen or thawed."""

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        state: TrainState,
        loss: LossFunction,
        normalization: Normalization,
        ranks: Ranks = ALONE,
    ) -> None:
        self._config, self._data, self._state = config, data, state
        self._loss, self._normalization, self._ranks = loss, normalization, ranks
        self._network = ranks.network(state.network)
        start_momentum(state.optimizer)
        self._logits_dtype, self._auxiliary = torch.float32, 0  # of the last micro-batch
        self._first_norm: Tensor | None = None
        # A CUDA graph's next call overwrites the gradients that it returned: sum them elsewhere.
        self._keeps_gradients = state.forward.uses_cuda_graphs and config.accumulation > 1
        if self._keeps_gradients:
            for parameter in state.network.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def __call__(self, micro_batches: Iterable[RawBatch]) -> Tensor:
        """Learn from the `accumulation` micro-batches of one batch; returns its loss, a scalar."""
        state, config = self._state, self._config
        total = torch.zeros((), device=state.device)
        shapes: list[torch.Size] = []
        for number, raw in enumerate(micro_batches, start=1):
            images, labels = augmented(
                raw, self._data, config.augment.crop_px, self._normalization, state.device
            )
            images = images.contiguous(memory_format=state.compute.layout)
            total += self._accumulate(images, labels, last=number == config.accumulation)
            shapes.append(images.shape)
        self._update()
        if state.seen is None:
            state.seen = self._seen(shapes, raw, images)
            self._first_norm = None
        return total

    def _accumulate(self, images: Tensor, labels: Tensor, last: bool) -> Tensor:
        """Add a micro-batch's gradients, compiled or, if that fails, not; returns its loss."""
        try:
            return self._forward_backward(images, labels, last)
        except Exception as error:
            if not self._state.forward.give_up(error):
                raise
        return self._forward_backward(images, labels, last)

    def _forward_backward(self, images: Tensor, labels: Tensor, last: bool) -> Tensor:
        """images (N, C, H, W), labels (N, H, W) -> the micro-batch's share of the loss."""
        state, ranks = self._state, self._ranks
        with ranks.accumulating(self._network, last=last):
            with state.compute.autocast(state.device):
                outputs = state.forward(self._network, images)
            logits, *auxiliary = [outputs] if isinstance(outputs, Tensor) else outputs
            self._logits_dtype, self._auxiliary = logits.dtype, len(auxiliary)
            value = self._loss_of(outputs, labels) / self._config.accumulation
            torch.autograd.backward(state.scaler.scale(value))
        return value.detach()

    def _loss_of(self, outputs: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """The loss of logits (N, K, H, W), and the weighted mean one of auxiliary ones."""
        if isinstance(outputs, Tensor):
            return self._loss(*self._ranks.whole_batch(outputs, labels))
        logits, *auxiliary = outputs
        value = self._loss(*self._ranks.whole_batch(logits, labels))
        share = self._config.decoder.deep_supervision / len(auxiliary)
        for stride, deep in zip(AUXILIARY_STRIDES, auxiliary, strict=True):
            deep_labels = labels_at(stride, labels, deep)
            value = value + share * self._loss(*self._ranks.whole_batch(deep, deep_labels))
        return value

    def _update(self) -> None:
        """Apply the gradients; the scaler leaves that out if scaled ones have overflowed."""
        state = self._state
        if self._config.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(state.network.parameters(), self._config.clip_norm)
        if state.seen is None:
            self._first_norm = _gradient_norm(state.network)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=not self._keeps_gradients)
        if state.ema:
            state.ema.update(state.model)

    def _seen(self, shapes: Sequence[torch.Size], raw: RawBatch, images: Tensor) -> SeenStep:
        """What the step computed with: `shapes` of its micro-batches, the last of them whole."""
        return SeenStep(
            images=sum(shape[0] for shape in shapes),
            micro_batches=len(shapes),
            shape=tuple(images.shape),
            window_px=raw.images.shape[-1],
            logits_dtype=self._logits_dtype,
            auxiliary=self._auxiliary,
            loss=self._loss,
            normalization=self._normalization,
            channels_last=images.is_contiguous(memory_format=torch.channels_last),
            contiguous=images.is_contiguous(),
            gradient_norm=self._first_norm,
        )


def _gradient_norm(network: nn.Module) -> Tensor | None:
    """The norm () of all gradients; None without any."""
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else None
