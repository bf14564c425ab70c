"""The faults, and when each of them occurs in a sweep."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from benchmarks.disturbance.victims import Server, Sweep

LONGEST_JUMP_S = 86_400.0
CTRL_C_S = 20.0  # the driver must end within this time
_WRITTEN_S = 1.5  # files that no longer change are written


def draw(kinds: list[str], count: int, rng: random.Random) -> list[str]:
    """`count` faults, equally many of each kind, in random order."""
    faults = (kinds * math.ceil(count / len(kinds)))[:count]
    rng.shuffle(faults)
    return faults


def schedule(count: int, epochs: int, rng: random.Random) -> list[int]:
    """After how many epochs of the sweep each fault occurs: one in each of `count` equal parts."""
    assert count < epochs, f"{count} faults need a sweep of more epochs than {epochs}"
    edges = [1 + (epochs - 1) * number // count for number in range(count + 1)]
    return [rng.randrange(start, end) for start, end in itertools.pairwise(edges)]


class Chaos:
    """Injects the faults into a sweep; each returns with the driver running or dead.

    A fault begins with the driver paused after an epoch. `until` is the number of epochs at which
    the driver, once continued, pauses again, so that the sweep does not end during a slow fault.
    """

    def __init__(
        self,
        sweep: Sweep,
        server: Server | None,
        outage_s: tuple[float, float],
        rungs: list[int],
        rng: random.Random,
    ) -> None:
        """`rungs` are the epochs after which a trial may be stopped."""
        self.sweep, self.server, self.outage_s = sweep, server, outage_s
        self.rungs, self.rng = rungs, rng
        self.until: int | None = None
        self.slow_exits = 0

    def continue_driver(self) -> None:
        """Let the driver continue for a part of an epoch or so."""
        self.sweep.control(hold_at=self.until)
        time.sleep(self.rng.uniform(0, 1))

    def driver(self) -> None:
        self.continue_driver()
        self.sweep.driver.kill()
        self.sweep.wait()

    def node(self) -> None:
        self.continue_driver()
        for process in self.sweep.processes("raylet/raylet"):
            process.kill()
        self.sweep.wait()

    def ctrl_c(self) -> None:
        self.continue_driver()
        self.sweep.driver.send_signal(signal.SIGINT)
        started = time.monotonic()
        code = self.sweep.wait()
        self.slow_exits += code != 130 or time.monotonic() - started > CTRL_C_S

    def worker(self) -> None:
        self.continue_driver()
        for process in self.sweep.processes("ray::ImplicitFunc"):
            process.kill()

    def checkpoint(self) -> None:
        """Truncate the running trial's newest checkpoint, and kill the driver before the next."""
        while (newest := self._resumable_checkpoint()) is None:
            aim = len(self.sweep.epochs()) + 1
            self.sweep.control(hold_at=aim)
            assert self.sweep.reaches(aim), "the sweep ended before there was a checkpoint"
        os.truncate(newest, newest.stat().st_size // 2)
        self.sweep.driver.kill()
        self.sweep.wait()

    def disk(self) -> None:
        filler = self.sweep.folder.parent / "filler"
        fill(filler)
        self.sweep.control(hold_at=None)  # writing the next file ends it
        self.sweep.wait()
        filler.unlink()

    def server_(self) -> None:
        assert self.server is not None
        self.continue_driver()
        before, started = len(self.sweep.epochs()), time.monotonic()
        self.server.kill()
        time.sleep(self.rng.uniform(*self.outage_s))
        trained = len(self.sweep.epochs()) - before
        self.server.start()
        down_s = time.monotonic() - started
        print(f"server down for {down_s:.0f} s, {trained} epochs meanwhile", file=sys.stderr)

    def clock(self) -> None:
        self.sweep.control(clock_off_s=self.rng.uniform(-LONGEST_JUMP_S, LONGEST_JUMP_S))

    def _resumable_checkpoint(self) -> Path | None:
        """The newest checkpoint of the running trial, if the trial continues."""
        last = self.sweep.epochs()[-1]
        if last["epoch"] in self.rungs:
            return None
        folder = self.sweep.folder / "trials" / last["trial"]
        written = None
        while written != (now := _files(folder)):  # the trial waits, its files are being written
            written = now
            time.sleep(_WRITTEN_S)
        return max(folder.glob("epoch-*/state.pt"), default=None)


FAULTS = {
    "driver": Chaos.driver,
    "worker": Chaos.worker,
    "node": Chaos.node,
    "ctrl-c": Chaos.ctrl_c,
    "disk": Chaos.disk,
    "server": Chaos.server_,
    "checkpoint": Chaos.checkpoint,
    "clock": Chaos.clock,
}


def _files(folder: Path) -> set[tuple[Path, int]]:
    """The files below `folder` with their sizes, those of the moment."""
    found = set()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            found.add((path, path.stat().st_size))
    return found


def fill(filler: Path) -> None:
    """Use up all free space of the disk of `filler`."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            return


def disturb(chaos: Chaos, faults: list[str], epochs: int) -> tuple[Counter, int]:
    """Run the started sweep to its end with all of the faults.

    It is paused after its first epoch and has at least `epochs` epochs. Returns the number of
    faults of each kind, and how often the driver ended without one.
    """
    sweep, done, unasked, restarted = chaos.sweep, Counter(), 0, False
    points = schedule(len(faults), epochs, chaos.rng)
    for number, fault in enumerate(faults):
        aim = max(points[number], len(sweep.epochs()) + restarted)  # restarted: it trains again
        sweep.control(hold_at=aim)
        while not sweep.reaches(aim):
            unasked += 1
            assert sweep.exit_code != 0, f"the sweep was over before {fault}"
            assert sweep.exit_code != 2, f"the sweep cannot continue: see {sweep.log.name}"
            sweep.resume()
        following = points[number + 1] if number + 1 < len(points) else epochs
        chaos.until = min(max(following, aim + 1), epochs)
        note = f"fault {number + 1}: {fault} after epoch {aim} of the sweep"
        sweep.note(f"--- {note}")
        print(note, file=sys.stderr, flush=True)
        FAULTS[fault](chaos)
        done[fault] += 1
        sweep.control(hold_at=chaos.until)
        if restarted := sweep.exit_code is not None:
            sweep.resume()
    sweep.control(hold_at=None)
    while sweep.wait(1200) != 0:
        unasked += 1
        assert unasked < len(faults), f"the sweep does not end: see {sweep.log.name}"
        sweep.resume()
    return done, unasked
