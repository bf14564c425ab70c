"""A CUDA device without a GPU, on which whatever would make the host wait raises.

torch's fake tensors have shapes, types and devices and no values: operations on mixed devices
raise, and so does what needs a value on the host. Copies between host and device are no error to
them; inside `NoWaiting` they are one, unless they are asked not to block.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)


class HostWaitsError(AssertionError):
    """A copy for which the host would wait."""


class NoWaiting(TorchDispatchMode):
    """Inside, a copy between host and device that blocks raises."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            devices = {args[0].device, torch.device(kwargs.get("device") or args[0].device)}
            waits = not kwargs.get("non_blocking")
        elif func is torch.ops.aten.copy_.default:
            devices = {args[0].device, args[1].device}
            waits = not (args[2:] and args[2]) and not kwargs.get("non_blocking")
        else:
            return func(*args, **kwargs)
        if waits and len({device.type for device in devices}) > 1:
            raise HostWaitsError(f"{func} between {' and '.join(map(str, devices))}")
        return func(*args, **kwargs)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, tensors are fake and `device="cuda"` exists.

    torch's autograd engine wants a real GPU: without one, a backward pass gives the parameters in
    the graph gradients and computes none. `fake_accelerator` computes them.
    """
    with pytest.MonkeyPatch.context() as patch:
        # A copied tensor would have a copied mode, and modes do not mix.
        patch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)
        # Parameters cannot be moved: build modules on their device.
        patch.setattr(torch.nn.Module, "to", lambda module, *_, **__: module)
        if not torch.cuda.is_available():
            patch.setattr(torch.autograd, "backward", _backward)
        with FakeTensorMode():
            yield


@contextmanager
def fake_accelerator() -> Iterator[None]:
    """Inside, tensors are fake and on the CPU, of which the code believes that it must not wait.

    Backward passes run.
    """
    with pytest.MonkeyPatch.context() as patch:
        losses = ("training.losses.masked_batch", "training.losses.lovasz")
        for module in ("data.label_tensors", *losses):
            patch.setattr(f"unetexp.{module}.on_host", lambda values: False)
        with FakeTensorMode():
            yield


def _backward(value: torch.Tensor) -> None:
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaf.grad = torch.zeros_like(leaf)
