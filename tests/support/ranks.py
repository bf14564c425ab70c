"""Two real processes joined by gloo, for tests of distributed training."""

import multiprocessing
import pickle
import queue
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

TIMEOUT_S = 120


class Pair:
    """Two ranks that wait for work; `both(function, *arguments)` runs it in each."""

    def __init__(self, rendezvous):
        context = multiprocessing.get_context("spawn")
        self.work = [context.Queue() for _ in range(2)]
        self.results = [context.Queue() for _ in range(2)]
        self.processes = [
            context.Process(
                target=_rank, args=(rank, str(rendezvous), self.work[rank], self.results[rank])
            )
            for rank in range(2)
        ]
        for process in self.processes:
            process.start()

    def both(self, function, *arguments):
        """The function's results, by rank; AssertionError with the traceback if it raised."""
        for channel in self.work:
            channel.put(pickle.dumps((function, arguments)))  # tensors would share their memory
        outcomes = []
        for channel in self.results:
            try:
                outcomes.append(channel.get(timeout=TIMEOUT_S))
            except queue.Empty:
                raise AssertionError(f"{function.__name__} hangs") from None
        for failed, value in outcomes:
            assert not failed, value
        return [pickle.loads(value) for _, value in outcomes]

    def close(self):
        for channel in self.work:
            channel.put(None)
        for process in self.processes:
            process.join(10)
            process.kill()


def _rank(rank, rendezvous, work, results):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=TIMEOUT_S / 2),
    )
    while (item := work.get()) is not None:
        function, arguments = pickle.loads(item)
        try:
            results.put((False, pickle.dumps(function(*arguments))))  # here, where errors show
        except Exception:
            results.put((True, traceback.format_exc()))
    dist.destroy_process_group()
