"""One trial on several GPUs: data-parallel ranks, started by Ray Train inside the trial.

The trial itself computes nothing. It asks Ray Train for one process per GPU, receives every epoch
from the first rank, reports it as any trial does, and returns whether to continue.
"""

from __future__ import annotations

import asyncio
import pickle
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from sweeps.execution.gpu_health import (
    GpuFaultError,
    GpuSetAsideError,
    gpu_fault,
    require_sound_gpu,
)
from sweeps.execution.trial import (
    RanksLostError,
    TrialContext,
    data_on_this_node,
    epoch_report,
    epochs_of,
    not_measured,
    run_trial,
    send,
)
from sweeps.search.trial_report import TrialMessage
from unetexp.compute.distributed import Group, Ranks
from unetexp.compute.measured import settings_for
from unetexp.system.cuda_errors import is_device_fault, is_out_of_memory
from unetexp.training.config import TrainConfig
from unetexp.training.experiment import Experiment, follow


class _Exchange:
    """An actor between the two ends, which cannot call each other: both are busy or waiting."""

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

    async def answer(self, proceed: bool) -> None:
        await self.answers.put(proceed)


class RankChannel:
    """A channel between a trial and its ranks; every call waits until the message is delivered."""

    def __init__(self) -> None:
        self._exchange: Any = ray.remote(num_cpus=0)(_Exchange).remote()

    def ask(self, message: Any) -> bool:
        """Send a message and wait for the trial's answer: whether to continue."""
        return bool(ray.get(self._exchange.ask.remote(message)))

    def tell(self, message: Any) -> None:
        """Send a message that needs no answer."""
        ray.get(self._exchange.tell.remote(message))

    def listen(self, timeout_s: float) -> list[Any]:
        """The next message, or none if it takes longer."""
        return list(ray.get(self._exchange.listen.remote(timeout_s)))

    def answer(self, proceed: bool) -> None:
        """Answer the rank that asks now, or the next one that asks."""
        ray.get(self._exchange.answer.remote(proceed))

    def close(self) -> None:
        """End the actor behind the channel."""
        ray.kill(self._exchange)


_LISTEN_S = 1.0  # between two checks whether the ranks are alive
_GLOO = "gloo"


@dataclass(frozen=True)
class _Task:
    """What every rank of a trial receives."""

    trial: str
    config: TrainConfig
    accumulation: int
    context: TrialContext
    channel: RankChannel


@dataclass(frozen=True)
class _Failure:
    """An exception of a rank, with its traceback."""

    error: Exception
    text: str


def run_parallel_trial(config: dict[str, Any], context: TrialContext) -> None:
    """As `run_trial`, on `context.ranks` GPUs."""
    run_trial(config, context, _train_on_ranks)


def _train_on_ranks(
    trial: str, config: TrainConfig, accumulation: int, context: TrialContext
) -> None:
    task = _Task(trial, config, accumulation, context, RankChannel())
    ranks = threading.Thread(target=_run_ranks, args=[task], daemon=True)
    ranks.start()
    try:
        for message in _messages(task.channel, ranks):
            if isinstance(message, _Failure):
                raise as_trial_error(message)
            if message is None:  # the first rank is done
                break
            send(message)
            task.channel.answer(True)
        else:
            raise RanksLostError("a process of the trial died")
    finally:
        task.channel.answer(False)  # to a rank that asks while the trial is being stopped
        ranks.join()
        task.channel.close()


def _messages(channel: RankChannel, ranks: threading.Thread) -> Iterator[Any]:
    """The ranks' messages, until the ranks have ended and all messages were received."""
    while True:
        alive = ranks.is_alive()
        messages = channel.listen(_LISTEN_S if alive else 0.1)
        yield from messages
        if not alive and not messages:
            return


def _run_ranks(task: _Task) -> None:
    """Run the ranks with Ray Train to their end; they report errors through the channel."""
    context = task.context
    cuda = context.device == "cuda"
    with tempfile.TemporaryDirectory(prefix="unetexp-train-") as scratch:
        trainer = TorchTrainer(
            _run_rank,
            train_loop_config={"task": task},
            torch_config=TorchConfig(backend="nccl" if cuda else _GLOO),
            scaling_config=ray.train.ScalingConfig(
                num_workers=context.ranks,
                use_gpu="GPU" in context.rank_resources,
                resources_per_worker=dict(context.rank_resources),
            ),
            run_config=ray.train.RunConfig(storage_path=scratch, name=task.trial),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError:
            return  # the rank has reported why, or it died without a message


def _run_rank(setting: dict[str, _Task]) -> None:
    """The function that each rank's process runs."""
    task = setting["task"]
    torch.set_num_threads(task.context.threads)
    try:
        require_sound_gpu()
        _train_a_rank(task, Group())
    except Exception as error:
        task.channel.tell(failure_of(error))
        raise


def _train_a_rank(task: _Task, ranks: Ranks) -> None:
    context, config = task.context, task.config
    device = get_device() if context.device == "cuda" else torch.device("cpu")
    data = data_on_this_node(context.data, config)
    compute = settings_for(context.compute, config, device)
    if ranks.rank > 0:
        others = follow(
            config,
            data,
            device,
            ranks,
            accumulation=task.accumulation,
            workers=context.loader_workers,
            compute=compute,
        )
        for _ in others:
            if not ranks.from_first(True):
                return
        return
    with context.storage.trial_folder(task.trial) as folder:
        experiment = Experiment(
            config, data, folder.path, device, task.accumulation, ranks, compute, context.score
        )
        unmeasured = not_measured(context.compute, compute, config, device)
        for sentence in [*unmeasured, *experiment.skipped_checkpoints]:
            task.channel.ask(TrialMessage(sentence))
        with closing(epochs_of(experiment, folder, context)) as reports:
            for report in reports:
                for note in report.notes:
                    task.channel.ask(TrialMessage(note))
                message = epoch_report(report, experiment, context)
                if not ranks.from_first(task.channel.ask(message)):
                    return
    task.channel.tell(None)


def failure_of(error: Exception) -> _Failure:
    """The exception in a form that can be pickled."""
    text = traceback.format_exc()
    if is_device_fault(error):
        error = gpu_fault(error, text)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return _Failure(RuntimeError(str(error)), text)
    return _Failure(error, text)


def as_trial_error(failure: _Failure) -> Exception:
    """What to raise for a rank's exception; a rank that lost its peer is not the cause."""
    error = failure.error
    known = isinstance(error, GpuFaultError | GpuSetAsideError) or is_out_of_memory(error)
    lost_a_peer = isinstance(error, dist.DistError) or _GLOO in str(error).lower()
    if lost_a_peer and not known:
        return RanksLostError(f"a process of the trial died: {error}")
    error.add_note(failure.text)
    return error
