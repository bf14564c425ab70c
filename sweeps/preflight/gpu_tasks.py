"""Work in Ray tasks that have a whole GPU each, and a node for each kind of GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.execution.trial import data_on_this_node
from sweeps.preflight.contention import measure_throughput
from sweeps.preflight.estimate import trials_per_gpu
from sweeps.preflight.step_cost import StepCost
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Dataset
from unetexp.data.folded import rounds
from unetexp.training.config import TrainConfig

_THROUGHPUT_S = 115.0  # for measuring it, the worker's start included
_KIND = "accelerator_type:"  # begins the name of a resource that Ray gives a node by its GPUs


class TaskLostError(RuntimeError):
    """A task took too long and was ended, or its worker died."""


def nodes_by_kind() -> list[str]:
    """The ids of nodes with GPUs, one for each kind that Ray knows them by."""
    found: dict[str, str] = {}
    for node in ray.nodes():
        resources = node["Resources"]
        if node["Alive"] and resources.get("GPU", 0) and resources.get("CPU", 0):
            kind = next((name for name in sorted(resources) if name.startswith(_KIND)), "")
            found.setdefault(kind, node["NodeID"])
    return list(found.values())


def in_worker(
    work: Callable[..., Any], *arguments: Any, limit_s: float, node: str | None = None
) -> Any:
    """`work` in a worker of its own with a whole GPU, of `node` if one is given.

    Raises what `work` raises, and TaskLostError.
    """
    task = ray.remote(num_cpus=1, num_gpus=1, max_retries=0, max_calls=1)(work)
    if node is not None:
        task = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
    answer = task.remote(*arguments)
    try:
        return ray.get(answer, timeout=limit_s)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        ray.cancel(answer, force=True)  # the GPU is for what comes next
        raise TaskLostError(type(error).__name__) from None


def throughput_in_worker(
    config: TrainConfig,
    data: Dataset,
    step_cost: StepCost,
    threads: int,
    compute: ComputeSettings | None = None,
    node: str | None = None,
) -> dict[int, float]:
    """Images a second that as many trials as memory holds train together on one GPU.

    `compute` is what was measured for the settings that are `auto`. Nothing where the Ray task on
    the GPU, of `node` if one is given, dies.
    """
    arguments = (config, data, step_cost.micro_batch, trials_per_gpu(step_cost), threads, compute)
    try:
        found = in_worker(_throughput, *arguments, limit_s=_THROUGHPUT_S, node=node)
    except TaskLostError:
        return {}
    assert isinstance(found, dict)
    return found


def _throughput(
    config: TrainConfig,
    data: Dataset,
    images: int,
    most: int,
    threads: int,
    compute: ComputeSettings | None,
) -> dict[int, float]:
    data = rounds(data_on_this_node(data, config))[0]
    return measure_throughput(
        config, data, "cuda", images=images, most=most, threads=threads, compute=compute
    )
