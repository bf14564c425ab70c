"""One run on several devices: what its processes, the ranks, do together.

Every rank has the whole model and its share of each micro-batch. The loop is written for `Ranks`
and is the same for one process (`ALONE`) and for many (`Group`). The figures are those of one
device: a loss that averages over pixels or classes is no mean of the ranks' losses, so it is
computed on the logits of all ranks. N images, K classes, H W image size.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unetexp.batch_norm import synchronise_batch_norm

T = TypeVar("T")


class Ranks(Protocol):
    """This process among those that train one model."""

    @property
    def rank(self) -> int:
        """Which one this is; the first, 0, keeps the files."""

    @property
    def world(self) -> int:
        """How many there are."""

    def network(self, model: nn.Module) -> nn.Module:
        """What to call for the logits, so that the gradients become those of all ranks' images.

        To be asked for again when parts of `model` were frozen or thawed.
        """

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; gradients travel with the last one."""

    def whole_batch(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and labels of all ranks' images, in the order one process has them in."""

    def gather(self, part: T) -> list[T]:
        """What each rank gave, by rank."""

    def from_first(self, value: T) -> T:
        """What the first rank gave."""


class _Alone:
    """The only process: nothing to exchange."""

    rank, world = 0, 1

    def network(self, model: nn.Module) -> nn.Module:
        return model

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
    """One rank of torch's default process group, which must be up: gloo or NCCL."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._network: DistributedDataParallel | None = None
        self._learning: list[bool] = []

    def network(self, model: nn.Module) -> nn.Module:
        learning = [parameter.requires_grad for parameter in model.parameters()]
        if self._network is None or learning != self._learning:
            synchronise_batch_norm(model)
            # DDP looks after the parameters that learn when it is made: no others, and not later.
            self._network, self._learning = DistributedDataParallel(model), learning
        return self._network

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        assert isinstance(network, DistributedDataParallel)
        return nullcontext() if last else cast(AbstractContextManager[None], network.no_sync())

    def whole_batch(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        masks = torch.cat(self._all(labels.to(torch.uint8))).long()  # void, 255, fits
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
