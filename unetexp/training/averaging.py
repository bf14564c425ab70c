"""The weights that are validated: averaged ones, and batch-norm statistics that belong to them.

After ten steps the running averages of batch norm belong mostly to older weights, which makes the
score jump from epoch to epoch. The statistics are therefore computed again from training batches.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from unetexp.models.unet import UNet


class AveragedWeights:
    """An exponential moving average of a model's weights and buffers, in `module`.

    torch's AveragedModel keeps its number of updates on the device and reads it at each of them,
    for which a GPU would have to wait.
    """

    def __init__(self, model: UNet, decay: float) -> None:
        """`decay` is the share of the average that an update keeps.

        After n updates it is at most (1 + n) / (10 + n), as in TensorFlow, so that the random
        start is soon forgotten.
        """
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: UNet) -> None:
        """Move the average towards `model`; call this after each optimiser step."""
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average, current = _floats(self.module), _floats(model)
        torch._foreach_lerp_(average, current, 1 - keep)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also of the form of earlier versions, which is that of torch's AveragedModel."""
        if "n_averaged" in state:
            prefix = "module."
            module = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            state = {"updates": int(state["n_averaged"]), "module": module}
        self.updates = state["updates"]
        self.module.load_state_dict(state["module"])


def _floats(model: UNet) -> list[Tensor]:
    """All weights and buffers but the counters of batches."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


@torch.no_grad()
def update_batch_norm(model: UNet, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of batch norm to those of `batches`, model input (N, C, H, W).

    The mean and the variance of all batches together, as in Wu and Johnson, "Rethinking Batch in
    BatchNorm" (arXiv:2105.07576): torch's update_bn leaves out the variance between the batches
    and resets frozen layers, too. These keep their statistics here, and so do all without a batch.
    The model is left in train mode.
    """
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    if not norms:
        return
    means, variances = _statistics(norms)
    first = torch._foreach_mul(means, 0)
    second = torch._foreach_mul(variances, 0)
    count = 0
    with _statistics_of_one_batch(norms):
        for batch in batches:
            model(batch)
            torch._foreach_add_(first, means)
            torch._foreach_add_(second, variances)
            torch._foreach_addcmul_(second, means, means)
            count += 1
    if not count:
        return
    torch._foreach_div_(first, count)
    torch._foreach_div_(second, count)
    torch._foreach_addcmul_(second, first, first, -1)
    torch._foreach_copy_(means, first)
    torch._foreach_copy_(variances, second)


def _statistics(norms: list[_BatchNorm]) -> tuple[list[Tensor], list[Tensor]]:
    means = [norm.running_mean for norm in norms]
    variances = [norm.running_var for norm in norms]
    return [m for m in means if m is not None], [v for v in variances if v is not None]


@contextmanager
def _statistics_of_one_batch(norms: list[_BatchNorm]) -> Iterator[None]:
    """The running statistics are replaced by each batch's own, and the counters stay."""
    momenta = [norm.momentum for norm in norms]
    counters = [norm.num_batches_tracked for norm in norms]
    counts = [counter.clone() for counter in counters if counter is not None]
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        torch._foreach_copy_([c for c in counters if c is not None], counts)
