"""The line between a trial and its ranks, which train in other processes.

A rank speaks and waits for the answer: so the trial hears of each epoch before the rank writes
that epoch's checkpoint, and can tell it to stop.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray


class _Exchange:
    """An actor, because neither end can call the other: both are busy training or waiting."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.answers: asyncio.Queue[bool] = asyncio.Queue()

    async def ask(self, message: Any) -> bool:
        await self.messages.put(message)
        return await self.answers.get()

    async def tell(self, message: Any) -> None:
        await self.messages.put(message)

    async def listen(self, timeout_s: float) -> list[Any]:
        try:
            return [await asyncio.wait_for(self.messages.get(), timeout_s)]
        except TimeoutError:
            return []

    async def answer(self, go_on: bool) -> None:
        await self.answers.put(go_on)


class Line:
    """Travels to the ranks; all calls wait until the other end has the message."""

    def __init__(self) -> None:
        self._exchange: Any = ray.remote(num_cpus=0)(_Exchange).remote()

    def ask(self, message: Any) -> bool:
        """Send a message and wait for what the trial makes of it: whether to go on."""
        return bool(ray.get(self._exchange.ask.remote(message)))

    def tell(self, message: Any) -> None:
        """Send a message that needs no answer."""
        ray.get(self._exchange.tell.remote(message))

    def listen(self, timeout_s: float) -> list[Any]:
        """The next message, or none if it takes longer."""
        return list(ray.get(self._exchange.listen.remote(timeout_s)))

    def answer(self, go_on: bool) -> None:
        """What the rank that asks, or the next to ask, gets to hear."""
        ray.get(self._exchange.answer.remote(go_on))

    def close(self) -> None:
        """End the actor behind the line."""
        ray.kill(self._exchange)
