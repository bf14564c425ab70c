"""The state of a training run that must survive a restart, and its checkpoints on disk.

Orders and augmentations follow from (seed, epoch, index) and the learning rate from the epoch,
so the state is small: weights, averaged weights, optimiser, the loss's scale, torch's
generators, best score.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unetexp.atomic_folder import recover, replacing
from unetexp.compute.compiled import TrainForward, compile_cache
from unetexp.compute.distributed import Ranks
from unetexp.compute.settings import ComputeSettings, resolved
from unetexp.data import Dataset
from unetexp.data.cache_folder import cache_folder
from unetexp.errors import CheckpointError
from unetexp.models.deep_supervision import deep_supervision_of
from unetexp.models.unet import UNet, build_unet
from unetexp.models.weights.resolution import load_encoder_weights
from unetexp.training.averaging import AveragedWeights
from unetexp.training.config import TrainConfig, decode_recorded
from unetexp.training.optim import parameter_groups
from unetexp.training.seen_step import SeenStep

log = logging.getLogger(__name__)

KEPT_EPOCHS = 2  # the last and the one before last: a damaged file costs one epoch, not the run
_STATE, _MANIFEST = "state.pt", "manifest.json"


class RunRecord(ABC):
    """A run between two epochs, and what it has reported. `epoch` counts the finished ones."""

    device: torch.device

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that resuming takes."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""

    def __init__(self) -> None:
        self.epoch = 0
        self.best_score = -math.inf
        self.best_epoch = 0
        self.history: list[dict[str, float]] = []  # the metrics of every finished epoch

    def record(self, metrics: dict[str, float], score: float, *, last: bool = False) -> bool:
        """Record the finished epoch's metrics; True when its score is the best so far.

        With `last` the newest epoch is the one to keep, whatever its score.
        """
        self.history.append({"epoch": self.epoch, **metrics})
        if not (last or score > self.best_score):
            return False
        self.best_score, self.best_epoch = score, self.epoch
        return True

    def record_dict(self) -> dict[str, Any]:
        """The record, as a part of a state dict."""
        return {
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }

    def load_record(self, state: Mapping[str, Any]) -> None:
        """Take over the record in a state dict."""
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.best_score, self.history = state["best_score"], list(state["history"])


class TrainState(RunRecord):
    """The run of one model between two epochs."""

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        device: torch.device,
        compute: ComputeSettings | None = None,
    ) -> None:
        """The start of a run: seeded weights, with pretrained ones loaded.

        `compute` is what was measured for the settings that are `auto`.
        """
        super().__init__()
        self.device = device
        self.compute = resolved(config, device, compute)
        torch.manual_seed(config.seed)
        model = build_unet(config.encoder, config.decoder, data.num_classes, data.channels)
        self.initial_weights = load_encoder_weights(model, config.encoder)
        self.model: UNet = model.to(device).to(memory_format=self.compute.layout)
        decay = config.averaging_decay(len(data["train"]))
        self.ema = None if decay is None else AveragedWeights(self.model, decay)
        self.supervised = deep_supervision_of(self.model)
        groups = parameter_groups(
            self.model,
            config.optimizer.lr,
            config.optimizer.weight_decay,
            config.encoder.lr_scale,
            config.optimizer.head_lr_scale,
        )
        if self.supervised:
            heads, optimizer = nn.ModuleDict({"head": self.supervised.heads}), config.optimizer
            scale, weight_decay = optimizer.head_lr_scale, optimizer.weight_decay
            groups += parameter_groups(heads, optimizer.lr, weight_decay, head_lr_scale=scale)
        self.optimizer = config.optimizer.build(groups, fused=True)
        self.scaler = self.compute.scaler(device)
        self.forward = TrainForward(self.compute.compile, compile_cache(cache_folder()))
        self.seen: SeenStep | None = None  # the first step in this process
        self.settings: dict[str, str] = {}  # once they are proved: which ones, and which not

    @property
    def network(self) -> nn.Module:
        """What learns: the model, with its auxiliary heads if there are any."""
        return self.supervised or self.model

    @property
    def evaluated_model(self) -> UNet:
        """The model that is validated and saved: with averaged weights if there are any."""
        return self.model if self.ema is None else self.ema.module

    def take_notes(self) -> tuple[str, ...]:
        """What the user should know about the last epoch; each note is given once."""
        if self.forward.failure is None:
            return ()
        note, self.forward.failure = self.forward.failure, None
        self.compute = replace(self.compute, compile="none")
        log.warning(note)
        return (note,)

    def state_dict(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            **self.record_dict(),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "auxiliary": self.supervised.heads.state_dict() if self.supervised else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_record(state)
        self.model.load_state_dict(state["model"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        if self.supervised:
            self.supervised.heads.load_state_dict(state["auxiliary"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):  # empty where nothing is scaled, missing in older checkpoints
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)

    def follow_first(self, ranks: Ranks) -> None:
        """Load the first rank's state, so that all ranks resume from one checkpoint.

        At the start of a run all states are equal, from the same seed, and nothing is sent.
        """
        file = io.BytesIO()
        if ranks.rank == 0 and ranks.world > 1 and self.epoch > 0:
            torch.save(self.state_dict(), file)
        content = ranks.from_first(file.getvalue())
        if content and ranks.rank > 0:
            file = io.BytesIO(content)
            self.load_state_dict(torch.load(file, map_location=self.device, weights_only=True))


class Checkpoints:
    """The resume checkpoints of one run: `epoch-NNNNN/` folders in `root`, the last two kept.

    `identity` (config, data fingerprint) is written into each: a checkpoint of another run is not
    loaded.
    """

    def __init__(self, root: Path, identity: dict[str, Any]) -> None:
        self.root = root
        self.identity = json.loads(json.dumps(identity))

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a `state_dict` of a finished epoch and remove all but the last two."""
        folder = self.root / f"epoch-{state['epoch']:05d}"
        with replacing(folder) as scratch:
            torch.save(state, scratch / _STATE)
            manifest = {
                "epoch": state["epoch"],
                "identity": self.identity,
                "sha256": _sha256(scratch / _STATE),
            }
            (scratch / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for old in self._folders()[KEPT_EPOCHS:]:
            shutil.rmtree(old, ignore_errors=True)

    def load_latest(self, state: RunRecord) -> list[str]:
        """Load the newest usable checkpoint into `state`.

        Returns a message for each checkpoint that was skipped; `state` stays at epoch 0 if none
        can be used.
        """
        skipped_checkpoints = []
        for folder in self._folders():
            try:
                state.load_state_dict(self._read(folder, state.device))
                break
            except CheckpointError as error:
                skipped_checkpoints.append(str(error))
        return skipped_checkpoints

    def clear(self) -> None:
        """Remove the resume state of a run that has ended."""
        for folder in self._folders():
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Newest first."""
        for hidden in self.root.glob(".old-epoch-*"):
            recover(self.root / hidden.name.removeprefix(".old-"))
        return sorted(self.root.glob("epoch-*"), reverse=True)

    def _read(self, folder: Path, device: torch.device) -> dict[str, Any]:
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            theirs = manifest["identity"]
            if "config" in theirs:  # of an earlier version, perhaps
                theirs = {**theirs, "config": decode_recorded(theirs["config"]).tree()}
            if theirs != self.identity:
                raise ValueError("it belongs to another run")
            if manifest["sha256"] != _sha256(folder / _STATE):
                raise ValueError("its checksum does not match: it is damaged")
            state = torch.load(folder / _STATE, map_location=device, weights_only=True)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"checkpoint {folder} is skipped: {error}") from None
        assert isinstance(state, dict)
        return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
