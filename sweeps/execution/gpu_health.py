"""GPUs whose processes keep dying are set aside: no trial uses them for the rest of the sweep.

In a worker, `own_gpu` names its GPU and `require_sound_gpu` refuses one that is set aside. In the
driver, `GpuWatch` counts deaths and has the GPU reserved. Ray cannot assign a particular GPU:
actors ask the node for any GPU, keep the right one and release others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.search.gpu_deaths import Gpu, GpuDeaths
from sweeps.search.trial_report import EpochFinished, TrialPlaced, TrialReport
from sweeps.state.stop_reason import StopReason
from unetexp.errors import UnetexpError
from unetexp.system.cuda_errors import is_assert

if TYPE_CHECKING:
    from sweeps.search.controller import SweepController

_LEAVE_S = 20.0  # a process that cannot use its GPU is ended after this time, even if CUDA hangs
_LET_GO_S = 60.0  # other GPUs are withheld from trials at most this long at a time
_TOGETHER_S = 10.0  # deaths on a shared GPU within this time have one cause
_FAILED = " failed: "
_MEMORY = ("OutOfMemoryError", "running low on memory")  # Ray ended it for the host's memory


class GpuFaultError(UnetexpError):
    """CUDA failed for good in this process; the message names the GPU and the cause."""


class GpuSetAsideError(UnetexpError):
    """The process was given a GPU that is set aside: the trial starts again on another one."""


def own_gpu() -> Gpu | None:
    """The GPU that Ray gave this process, real or simulated; None outside Ray or without one."""
    indices = ray.get_gpu_ids() if ray.is_initialized() else []
    if not indices:
        return None
    node = ray.get_runtime_context().get_node_id()
    return Gpu(str(indices[0]), ray.util.get_node_ip_address(), node)


def require_sound_gpu() -> Gpu | None:
    """As `own_gpu`; raises GpuSetAsideError, and ends the process, where it is set aside."""
    gpu = own_gpu()
    if gpu is not None and _is_marked(gpu):
        leave_process()
        raise GpuSetAsideError(f"{gpu} is set aside")
    return gpu


def gpu_fault(error: BaseException, text: str) -> GpuFaultError:
    """What to raise for a device fault whose traceback is `text`; the process ends soon."""
    leave_process()
    what = str(error).partition("\n")[0]
    return GpuFaultError(f"{text}\n{own_gpu() or 'the GPU'}{_FAILED}{what}")


def leave_process() -> None:
    """End this Ray worker soon: Ray ends it too, but CUDA may hang during its shutdown."""
    if own_gpu() is not None:
        timer = threading.Timer(_LEAVE_S, os._exit, [1])
        timer.daemon = True
        timer.start()


def _is_marked(gpu: Gpu) -> bool:
    try:
        ray.get_actor(gpu.marker)
    except ValueError:
        return False
    return True


def _idle_actor() -> Any:
    """An actor that only holds its GPU. Defined here, it is pickled without our imports."""

    class Idle:
        def index(self) -> str:
            import ray

            return str([*ray.get_gpu_ids(), None][0])

    return ray.remote(Idle)


@dataclass
class _Capture:
    """The actors that reserve one GPU."""

    gpu: Gpu
    marker: Any
    kept: list[Any] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    asked: Any = None
    answer: Any = None
    polls_until: float = 0.0


class GpuHolder:
    """Marks GPUs as set aside and reserves them in Ray, in parts of size `share`."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._captures: list[_Capture] = []

    def take(self, gpu: Gpu) -> None:
        """Mark the GPU now; `poll` reserves it once no trial uses it any more."""
        marker = _idle_actor().options(num_cpus=0, name=gpu.marker).remote()
        self._captures.append(_Capture(gpu, marker))

    def retake(self, gpu: Gpu) -> None:
        """A trial's process was given the GPU anyway: the actors that held it may have died."""
        for capture in self._captures:
            if capture.gpu == gpu:
                _kill(capture.kept)

    def poll(self, busy: set[Gpu]) -> None:
        """Reserve the GPUs that are not held yet and not `busy` with a trial; does not wait."""
        for capture in list(self._captures):
            if self._is_held(capture):
                continue
            if capture.gpu in busy:
                _let_go(capture)
            elif capture.asked is None:
                self._ask(capture)
            elif ray.wait([capture.answer], timeout=0)[0]:
                self._sort(capture)
            elif self._clock() > capture.polls_until:
                _let_go(capture)

    def close(self) -> None:
        """End all actors."""
        for capture in self._captures:
            _let_go(capture)
            _kill(capture.kept)
            ray.kill(capture.marker)
        self._captures.clear()

    def _ask(self, capture: _Capture) -> None:
        here = NodeAffinitySchedulingStrategy(capture.gpu.node, soft=False)
        options = {"num_cpus": 0, "num_gpus": self._share, "scheduling_strategy": here}
        capture.asked = _idle_actor().options(**options).remote()
        capture.answer = capture.asked.index.remote()
        if not capture.wrong:
            capture.polls_until = self._clock() + _LET_GO_S

    def _sort(self, capture: _Capture) -> None:
        """Keep the new actor if it has the GPU; otherwise release it later."""
        actor, capture.asked = capture.asked, None
        try:
            index = ray.get(capture.answer)
        except RayError:  # the actor died: ask again; or its node died, and the GPU is gone
            if not any(n["NodeID"] == capture.gpu.node and n["Alive"] for n in ray.nodes()):
                self._captures.remove(capture)
            return
        (capture.kept if index == capture.gpu.index else capture.wrong).append(actor)
        if self._is_held(capture):
            _let_go(capture)

    def _is_held(self, capture: _Capture) -> bool:
        return len(capture.kept) * self._share > 1 - 1e-6


def _let_go(capture: _Capture) -> None:
    if capture.asked is not None:
        capture.wrong.append(capture.asked)
    _kill(capture.wrong)
    capture.asked = capture.answer = None


def _kill(actors: list[Any]) -> None:
    for actor in actors:
        ray.kill(actor)
    actors.clear()


class GpuWatch:
    """Tracks which trial runs on which GPU, and sets aside GPUs whose processes keep dying."""

    def __init__(
        self,
        controller: SweepController,
        holder: GpuHolder,
        gpus_per_trial: float = 1.0,
        count: Callable[[], float] = lambda: ray.cluster_resources().get("GPU", 0.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`count` returns the number of GPUs, including those that are set aside."""
        self._shared, self._clock = gpus_per_trial < 1, clock
        self._last_death: dict[Gpu, float] = {}
        self._controller, self._holder = controller, holder
        self._needed, self._count = max(1.0, gpus_per_trial), count
        self._gpus: dict[str, Gpu] = {}
        self.deaths = GpuDeaths()

    def heard(self, trial: str, report: TrialReport) -> None:
        """A worker has sent a report."""
        match report:
            case TrialPlaced(name) if gpu := Gpu.named_in(name):
                self._gpus[trial] = gpu
            case EpochFinished() if trial in self._gpus:
                self.deaths.worked(self._gpus[trial])

    def left(self, trial: str) -> Gpu | None:
        """Record that the trial no longer uses its GPU; returns that GPU."""
        return self._gpus.pop(trial, None)

    def died(self, trial: str, placed: Gpu | None, cause: StopReason, text: str) -> None:
        """A trial's process on the GPU `placed` died of `cause`; `text` is Ray's message."""
        gpu = Gpu.named_in(text) or placed
        if gpu is not None and cause is StopReason.GPU_SET_ASIDE:
            self._holder.retake(gpu)
        if gpu is None or cause is not StopReason.CRASH or any(sign in text for sign in _MEMORY):
            return
        fault = GpuFaultError.__name__ in text
        error = text.rpartition(_FAILED)[2].partition("\n")[0] if fault else "a process crashed"
        if fault:
            self._controller.say(f"trial {trial} on {gpu.short}: {error}")
        if is_assert(text):  # a label or an index out of range, on whichever GPU
            return
        if self._goes_with_another(gpu):
            return
        left = self._count() - len(self.deaths.set_aside) - 1
        if self.deaths.died(gpu, trial, error, fault=fault, last=left < self._needed):
            self._set_aside(gpu, error, enough_left=left >= self._needed)

    def _goes_with_another(self, gpu: Gpu) -> bool:
        """Whether the death is a neighbour's doing: a fault under MPS ends all on that GPU."""
        before, now = self._last_death.get(gpu), self._clock()
        self._last_death[gpu] = now
        return self._shared and before is not None and now - before < _TOGETHER_S

    def poll(self) -> None:
        """To be called often: continues to reserve the GPUs that are set aside."""
        self._holder.poll(set(self._gpus.values()))

    def close(self) -> None:
        """End all actors, once the sweep is over."""
        self._holder.close()

    def _set_aside(self, gpu: Gpu, error: str, *, enough_left: bool) -> None:
        self._holder.take(gpu)
        self._controller.gpu_set_aside(gpu.short, error)
        if not enough_left:
            listed = "; ".join(f"{g.short} ({why})" for g, why in self.deaths.set_aside.items())
            self._controller.halt(
                f"no GPU is left to train on, processes kept dying on: {listed}. Check the driver "
                "and the hardware (nvidia-smi, dmesg), reset or replace these GPUs, then resume."
            )
