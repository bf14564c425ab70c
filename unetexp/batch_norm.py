"""Batch norm whose statistics are those of all ranks' images together.

torch's SyncBatchNorm does it on GPUs and refuses the CPU; here is the same formula in plain
tensor operations, so that a rehearsal on the CPU trains to the figures of one process.
N batch, C channels, H W height and width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_batch_norm(model: nn.Module) -> None:
    """Replace the batch norms inside `model`, in place; parameters and names stay the same.

    Frozen ones are in eval mode and go on using their running statistics. A second call changes
    nothing.
    """
    if next(model.parameters()).device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _CpuSyncBatchNorm.of(child))


class _CpuSyncBatchNorm(_BatchNorm):
    """Every rank brings the same number of values, so the count needs no exchange."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> _CpuSyncBatchNorm:
        """`norm` with its own parameters and buffers, synchronised."""
        synchronised = cls(norm.num_features, norm.eps, norm.momentum)
        synchronised.weight, synchronised.bias = norm.weight, norm.bias
        synchronised.running_mean, synchronised.running_var = norm.running_mean, norm.running_var
        synchronised.num_batches_tracked = norm.num_batches_tracked
        return synchronised.train(norm.training)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and type."""
        if not self.training:
            return super().forward(feature)
        values = feature.float()
        count = values[:, 0].numel() * dist.get_world_size()
        mean = _sum_over_ranks(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean.view(-1, 1, 1)
        variance = _sum_over_ranks(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(feature.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim == 4


class _SumOverRanks(torch.autograd.Function):
    """What every rank gets depends on what each one gave: so the gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return _all_reduced(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_reduced(gradients[0])


def _sum_over_ranks(part: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(part)
    return total


def _all_reduced(part: Tensor) -> Tensor:
    total = part.clone()
    dist.all_reduce(total)
    return total
