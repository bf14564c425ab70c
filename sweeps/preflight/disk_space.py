"""Whether the disks hold what a sweep will write, told from the number of parameters.

The decoded data set lies in its cache before this is asked, so the cache needs nothing more. What
is behind a URI or a server cannot be measured and is left out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from sweeps.state.storage import Storage, folder_bytes
from unetexp.data import Dataset
from unetexp.errors import UserError
from unetexp.models.saved_model import parameter_count
from unetexp.models.unet import build_unet
from unetexp.training.config import TrainConfig
from unetexp.training.state import KEPT_EPOCHS

_FLOAT = 4
_PICTURES_BYTES = 4 * 2**20  # a trial's overlays, plots and tables
_POINT_BYTES = 300  # a metric's point in the tracking database, with its index
_FIGURES = 30  # an epoch


@dataclass(frozen=True)
class Need:
    """Bytes that a sweep will write at a place."""

    what: str
    place: Path
    bytes: int


@dataclass(frozen=True)
class Sizes:
    """A model on disk, and all that resuming its training takes."""

    model_bytes: int
    resume_bytes: int

    @property
    def running_bytes(self) -> int:
        """Of a running trial: its newest resume state is whole before its oldest goes."""
        return self.model_bytes + (KEPT_EPOCHS + 1) * self.resume_bytes


def largest_sizes(configs: Iterable[TrainConfig], data: Dataset) -> Sizes:
    """The sizes of the largest of the configs."""
    sizes = [_sizes(config, data) for config in configs]
    return max(sizes, key=lambda size: size.resume_bytes)


def needs(
    sizes: Sizes,
    storage: Storage,
    artifacts: Path | None,
    *,
    trials: int,
    at_once: int,
    epochs: int,
    kept: int,
    ended: int = 0,
    folds: int = 0,
) -> list[Need]:
    """What `trials` trials, of which some have `ended` before, are still to write on this machine.

    So many of them have their models `kept`; each has so many `folds`.
    `artifacts` None: a server has them.
    """
    running = at_once * sizes.running_bytes
    if storage.is_remote:
        found = [Need("running trials", Path(tempfile.gettempdir()), running)]
    else:
        folder = Path(storage.root)
        # A model that is not kept goes after its trial has ended, when others may have started.
        models = min(trials, kept + at_once) * sizes.model_bytes
        whole = models + trials * _PICTURES_BYTES + running
        found = [Need("checkpoints", folder, max(0, whole - folder_bytes(folder)))]
    if artifacts is not None:
        to_come = trials - ended
        points = to_come * epochs * _FIGURES * (1 + folds) * _POINT_BYTES
        models = kept * sizes.model_bytes + to_come * _PICTURES_BYTES
        found.append(Need("tracking and artifacts", artifacts, models + points))
    return found


def require_disk_space(wanted: Iterable[Need]) -> None:
    """Raise UserError where a place is no folder to write in, or its disk has too little room."""
    by_disk: dict[int, list[Need]] = defaultdict(list)
    for need in wanted:
        standing = _standing(need.place)
        if not standing.is_dir() or not os.access(standing, os.W_OK):
            raise UserError(
                f"{need.what} cannot be written to {need.place}: {standing} is not a folder that "
                "you may write to. Choose another place with --storage or --tracking-uri."
            )
        by_disk[standing.stat().st_dev].append(need)
    for together in by_disk.values():
        free = shutil.disk_usage(_standing(together[0].place)).free
        total = sum(need.bytes for need in together)
        if total > free:
            listed = ", ".join(f"{n.what} at {n.place}: {_gib(n.bytes)}" for n in together)
            raise UserError(
                f"the disk has {_gib(free)} free and the sweep will write up to {_gib(total)} "
                f"({listed}). Free space, choose another place with --storage or --tracking-uri, "
                "or try fewer --trials."
            )


def _sizes(config: TrainConfig, data: Dataset) -> Sizes:
    with torch.device("meta"):  # shapes only
        model = build_unet(config.encoder, config.decoder, data.num_classes, data.channels)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    weights = parameter_count(model) * _FLOAT
    moments = 2 if config.optimizer.kind == "adamw" else int(config.optimizer.momentum > 0)
    averaged = 0 if config.averaging_decay(1) is None else 1
    models = max(1, len(data.folds))
    resume = weights * (1 + moments + averaged) + buffers * (1 + averaged)
    return Sizes(models * (weights + buffers), models * resume)


def _standing(place: Path) -> Path:
    """The nearest part of the path that exists."""
    return next(part for part in (place, *place.parents) if part.exists())


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
