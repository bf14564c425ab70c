"""Memory is used again when nobody holds it, and never before."""

from __future__ import annotations

import threading

import torch

from unetexp.training.batches.reused_memory import ReusedMemory


def test_memory_that_nobody_holds_is_used_again():
    memory = ReusedMemory(torch.float32)
    first = memory.empty(4, 3)
    assert first.shape == (4, 3)
    assert first.dtype == torch.float32
    address = first.data_ptr()
    del first
    smaller = memory.empty(2, 5)
    assert smaller.data_ptr() == address
    del smaller
    assert memory.empty(5, 5).shape == (5, 5)


def test_memory_that_somebody_holds_is_left_alone():
    memory = ReusedMemory(torch.int64)
    holders = [
        lambda tensor: tensor,
        lambda tensor: tensor[1:],
        lambda tensor: tensor.view(-1).detach(),
        lambda tensor: tensor.numpy(),
    ]
    for hold in holders:
        held = hold(memory.empty(2, 3).fill_(7))
        memory.empty(2, 3).fill_(0)
        assert (held == 7).all()


def test_what_autograd_keeps_is_left_alone():
    memory = ReusedMemory(torch.float32)
    factor = torch.ones(3, requires_grad=True)
    loss = (memory.empty(3).fill_(2) * factor).sum()
    memory.empty(3).fill_(9)
    loss.backward()
    assert factor.grad.tolist() == [2, 2, 2]


def test_threads_do_not_share_memory():
    memory = ReusedMemory(torch.float32)
    first = memory.empty(3)
    address = first.data_ptr()
    del first
    found = []
    thread = threading.Thread(target=lambda: found.append(memory.empty(3)))
    thread.start()
    thread.join()
    assert found[0].data_ptr() != address
    assert memory.empty(3).data_ptr() == address
