"""The thread that writes files: order, errors, waiting; and snapshots of a state."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from unetexp.training.writer import FileWriter, Snapshot

CPU = torch.device("cpu")


def failing():
    raise OSError(28, "No space left on device")


def test_jobs_run_in_their_order_in_another_thread_and_are_done_at_the_end():
    done = []
    with FileWriter() as files:
        for number in range(20):
            files.submit(lambda number=number: done.append((number, threading.get_ident())))
    assert [number for number, _ in done] == list(range(20))
    assert {thread for _, thread in done} - {threading.get_ident()}


def test_flush_waits_for_what_was_submitted():
    done = []
    with FileWriter() as files:
        files.submit(lambda: (time.sleep(0.1), done.append(1)))
        assert not done
        files.flush()
        assert done


def test_at_most_one_job_waits():
    gate = threading.Event()
    with FileWriter() as files:
        for _ in range(2):  # one runs, one waits
            files.submit(lambda: gate.wait(10))
        third = threading.Thread(target=files.submit, args=[lambda: None])
        third.start()
        third.join(0.1)
        assert third.is_alive()
        gate.set()
        third.join(10)
        assert not third.is_alive()


@pytest.mark.parametrize("call", ["submit", "flush", "end"])
def test_an_error_is_raised_by_the_next_call_and_later_jobs_are_dropped(call):
    done = []
    with pytest.raises(OSError, match="No space"), FileWriter() as files:
        files.submit(failing)
        while call == "submit":
            files.submit(lambda: done.append(1))
            time.sleep(0.01)
        if call == "flush":
            files.submit(lambda: done.append(1))
            files.flush()
    assert not done


def test_it_finishes_what_it_has_when_training_is_stopped():
    done = []
    with pytest.raises(SystemExit), FileWriter() as files:
        files.submit(lambda: (time.sleep(0.05), done.append(1)))
        raise SystemExit
    assert done


def test_a_snapshot_does_not_change_with_the_state():
    model = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": [1, (2,)]}
    before = model.weight.detach().clone()
    snapshot = Snapshot.of(state, CPU)

    model(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    state["epochs"].append(3)

    kept = snapshot.content()
    assert torch.equal(kept["model"]["weight"], before)
    assert not torch.equal(model.weight, before)
    assert kept["optimizer"]["state"] == {}
    assert kept["epochs"] == [1, (2,)]
    assert kept["model"]["weight"].is_contiguous(memory_format=torch.channels_last)
