"""GPUs whose processes keep dying are set aside: no trial uses them for the rest of the sweep.

In a worker: `own_gpu` names its GPU, `require_sound_gpu` refuses one that is set aside. In the
driver, `GpuWatch` counts deaths and has the GPU held. Ray cannot be asked for a particular GPU:
actors that ask its node for any GPU keep the right one and let go of others.
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
from unetexp.cuda_errors import is_assert
from unetexp.errors import UnetexpError

if TYPE_CHECKING:
    from sweeps.search.controller import SweepController

_LEAVE_S = 20.0  # a process that cannot use its GPU is gone after so long, whatever hangs
_LET_GO_S = 60.0  # other GPUs are kept from trials no longer than this at a time
_FAILED = " failed: "
_MEMORY = ("OutOfMemoryError", "running low on memory")  # Ray ended it for the host's memory


class GpuFaultError(UnetexpError):
    """CUDA failed for good in this process; the message names the GPU and the cause."""


class GpuSetAsideError(UnetexpError):
    """The process was given a GPU that is set aside: to be started again, on another one."""


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
    """End this worker of Ray's soon: Ray ends it too, but CUDA may hang as it is taken down."""
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
    """An actor that does nothing with its GPU. Made here, it travels without our imports."""

    class Idle:
        def index(self) -> str:
            import ray

            return str([*ray.get_gpu_ids(), None][0])

    return ray.remote(Idle)


@dataclass
class _Capture:
    """The actors that are after one GPU."""

    gpu: Gpu
    marker: Any
    kept: list[Any] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    asked: Any = None
    answer: Any = None
    polls_until: float = 0.0


class GpuHolder:
    """Marks GPUs as set aside, and takes them out of Ray's hands `share` by `share`."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._captures: list[_Capture] = []

    def take(self, gpu: Gpu) -> None:
        """Mark the GPU at once; `poll` takes it when nobody is on it any more."""
        marker = _idle_actor().options(num_cpus=0, name=gpu.marker).remote()
        self._captures.append(_Capture(gpu, marker))

    def retake(self, gpu: Gpu) -> None:
        """A trial's process was given the GPU all the same: what held it may have died."""
        for capture in self._captures:
            if capture.gpu == gpu:
                _kill(capture.kept)

    def poll(self, busy: set[Gpu]) -> None:
        """Go after the GPUs that are not yet held and not `busy` with a trial; does not wait."""
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
        """Keep the actor that was asked for if it has the GPU, and remember it if not."""
        actor, capture.asked = capture.asked, None
        try:
            index = ray.get(capture.answer)
        except RayError:  # it died: ask again; or its node did, and the GPU is gone
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
    """Follows which trial runs on which GPU, and has those set aside whose processes keep dying."""

    def __init__(
        self,
        controller: SweepController,
        holder: GpuHolder,
        gpus_per_trial: float = 1.0,
        count: Callable[[], float] = lambda: ray.cluster_resources().get("GPU", 0.0),
    ) -> None:
        """`count` tells how many GPUs there are, with those that are set aside."""
        self._controller, self._holder = controller, holder
        self._needed, self._count = max(1.0, gpus_per_trial), count
        self._seats: dict[str, Gpu] = {}
        self.deaths = GpuDeaths()

    def heard(self, trial: str, report: TrialReport) -> None:
        """A worker has reported something."""
        match report:
            case TrialPlaced(name) if gpu := Gpu.named_in(name):
                self._seats[trial] = gpu
            case EpochFinished() if trial in self._seats:
                self.deaths.worked(self._seats[trial])

    def left(self, trial: str) -> Gpu | None:
        """The trial is no longer on its GPU, which is returned."""
        return self._seats.pop(trial, None)

    def died(self, trial: str, seat: Gpu | None, cause: StopReason, text: str) -> None:
        """A trial's process on the GPU `seat` died of `cause`, of which Ray wrote `text`."""
        gpu = Gpu.named_in(text) or seat
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
        left = self._count() - len(self.deaths.condemned) - 1
        if self.deaths.died(gpu, trial, error, fault=fault, last=left < self._needed):
            self._set_aside(gpu, error, enough_left=left >= self._needed)

    def poll(self) -> None:
        """To be called often: goes on taking the GPUs that are set aside."""
        self._holder.poll(set(self._seats.values()))

    def close(self) -> None:
        """The sweep is over."""
        self._holder.close()

    def _set_aside(self, gpu: Gpu, error: str, *, enough_left: bool) -> None:
        self._holder.take(gpu)
        self._controller.gpu_set_aside(gpu.short, error)
        if not enough_left:
            listed = "; ".join(f"{g.short} ({why})" for g, why in self.deaths.condemned.items())
            self._controller.halt(
                f"no GPU is left to train on, processes kept dying on: {listed}. Check the driver "
                "and the hardware (nvidia-smi, dmesg), reset or replace these GPUs, then resume."
            )
