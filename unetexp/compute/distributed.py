"""One run on several devices: how its processes, the ranks, work together.

Every rank has the whole model and its share of each micro-batch. The loop is written for `Ranks`
and is the same for one process (`ALONE`) and for many (`Group`). The metrics are those of one
device: a mean over all pixels or classes is not the mean of the ranks' losses, so the loss is
computed on the logits of all ranks. N images, K classes, H W image size.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

_RENAMED = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # in torch 2.14
_NO_BROADCAST: Any = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


class Ranks(Protocol):
    """This process among those that train one model."""

    @property
    def rank(self) -> int:
        """The number of this rank; the first, 0, writes the files."""

    @property
    def world(self) -> int:
        """The number of ranks."""

    def network(self, model: nn.Module) -> nn.Module:
        """The module that computes the logits; its gradients are those of all ranks' images.

        Call this again when parts of `model` were frozen or thawed.
        """

    def synchronise(self, model: nn.Module) -> None:
        """Let batch norm in train mode see the images of all ranks, in place."""

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """The context of a micro-batch's forward and backward; the last exchanges gradients."""

    def whole_batch(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and labels of all ranks' images, in the order of a single process."""

    def gather(self, part: T) -> list[T]:
        """The `part` of each rank, in the order of the ranks."""

    def from_first(self, value: T) -> T:
        """The `value` of the first rank."""


class _Alone:
    """The only process: nothing to exchange."""

    rank, world = 0, 1

    def network(self, model: nn.Module) -> nn.Module:
        return model

    def synchronise(self, model: nn.Module) -> None:
        pass

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def whole_batch(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits, labels

    def gather(self, part: T) -> list[T]:
        return [part]

    def from_first(self, value: T) -> T:
        return value


ALONE: Ranks = _Alone()


class Group:
    """One rank of torch's default process group (gloo or NCCL), which must be initialised."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._network: DistributedDataParallel | None = None
        self._learning: list[bool] = []

    def network(self, model: nn.Module) -> nn.Module:
        learning = [parameter.requires_grad for parameter in model.parameters()]
        if self._network is None or learning != self._learning:
            self.synchronise(model)
            # DDP synchronises the parameters that require gradients when it is created, no others.
            # Batch norm's statistics are equal on all ranks, and a broadcast would count as a
            # change of frozen ones, which would be folded again at each step.
            self._network = DistributedDataParallel(model, **_NO_BROADCAST)
            self._learning = learning
        return self._network

    def synchronise(self, model: nn.Module) -> None:
        synchronise_batch_norm(model)

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        assert isinstance(network, DistributedDataParallel)
        return nullcontext() if last else cast(AbstractContextManager[None], network.no_sync())

    def whole_batch(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        masks = torch.cat(self._all(labels.to(torch.uint8))).long()  # 255 (void) fits
        return cast(Tensor, _AllLogits.apply(logits, self)), masks

    def gather(self, part: T) -> list[T]:
        parts: list[T | None] = [None] * self.world
        dist.all_gather_object(parts, part)
        return cast(list[T], parts)

    def from_first(self, value: T) -> T:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _all(self, part: Tensor) -> list[Tensor]:
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.world)]
        dist.all_gather(parts, part)
        return parts


class _AllLogits(torch.autograd.Function):
    """(N / world, K, H, W) of each rank -> (N, K, H, W) on every rank.

    Every rank then has the same loss and sends back the gradient of its own images only, times
    the number of ranks: DDP averages over the ranks, and one process would sum.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, group: Group) -> Tensor:
        ctx.rank, ctx.world = group.rank, group.world
        return torch.cat(group._all(logits))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].chunk(ctx.world)[ctx.rank] * ctx.world, None


def synchronise_batch_norm(model: nn.Module) -> None:
    """Replace the batch norms inside `model`, in place; parameters and names stay the same.

    Frozen ones are in eval mode and keep using their running statistics. A second call changes
    nothing.
    """
    on_cuda = next(model.parameters()).device.type == "cuda"
    kind = _CudaSyncBatchNorm if on_cuda else _CpuSyncBatchNorm
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _synchronised(child, kind))


def _synchronised(norm: nn.BatchNorm2d, kind: type[_BatchNorm]) -> _BatchNorm:
    """`norm` as another kind with its own parameters, buffers and parts, such as an activation."""
    twin = kind(norm.num_features, norm.eps, norm.momentum)
    twin.__dict__.update(norm.__dict__)
    return twin


class _CudaSyncBatchNorm(nn.SyncBatchNorm):
    """torch's, followed by the parts that a batch norm of timm has: its activation."""

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and type."""
        return _followed(self, super().forward(feature))


class _CpuSyncBatchNorm(_BatchNorm):
    """Every rank has the same number of values, so the count needs no exchange."""

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and type."""
        normalised = self._over_ranks(feature) if self.training else super().forward(feature)
        return _followed(self, normalised)

    def _over_ranks(self, feature: Tensor) -> Tensor:
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


def _followed(norm: nn.Module, feature: Tensor) -> Tensor:
    for part in norm.children():
        feature = part(feature)
    return feature


class _SumOverRanks(torch.autograd.Function):
    """Each output depends on the inputs of all ranks, so the gradients are summed, too."""

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
