"""Which trials wait for a worker process, so that none is started in vain.

Ray Tune gives a worker that a trial has left to the trial that has waited longest, and kills the
one that was starting for it: each short trial costs a process. Here the worker goes to a trial
that is proposed because of it, and those that are starting come up.
"""

from __future__ import annotations


class WorkerQueue:
    """Trials from their proposal until a worker has them; `limit` workers may start at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: set[str] = set()
        self.free = 0  # workers that a trial has left and none has taken

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.limit + self.free

    def proposed(self, trial: str) -> None:
        self.waiting.add(trial)

    def takes_over(self, trial: str) -> bool:
        """Whether the trial, which waits, is to have a free worker."""
        if not self.free or trial not in self.waiting:
            return False
        self.free -= 1
        self.waiting.remove(trial)
        return True

    def left(self) -> None:
        """A trial has left its worker, which can be used again."""
        self.free += 1

    def settled(self, trial: str) -> None:
        """The trial has its worker, or needs none."""
        self.waiting.discard(trial)
