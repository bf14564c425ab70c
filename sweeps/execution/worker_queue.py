"""Which trials wait for a worker process, so that no worker is started for nothing.

Ray Tune gives a free worker to the trial that has waited longest, and kills the worker that was
starting for that trial: each short trial costs a process. Here a free worker goes to a trial that
is proposed for it, and starting workers are kept.
"""

from __future__ import annotations


class WorkerQueue:
    """Trials from their proposal until a worker has them; `limit` workers may start at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: set[str] = set()
        self.free = 0  # workers without a trial

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.limit + self.free

    def proposed(self, trial: str) -> None:
        self.waiting.add(trial)

    def takes_over(self, trial: str) -> bool:
        """Give the waiting trial a free worker; False if there is none."""
        if not self.free or trial not in self.waiting:
            return False
        self.free -= 1
        self.waiting.remove(trial)
        return True

    def left(self) -> None:
        """A trial has ended on its worker, which is now free."""
        self.free += 1

    def settled(self, trial: str) -> None:
        """The trial has its worker, or needs none any more."""
        self.waiting.discard(trial)
