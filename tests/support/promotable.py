"""A store with hand-made sweeps whose trials hold small real models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import yaml

from sweeps.config.loading import load_recipe
from sweeps.config.recipe import Recipe
from sweeps.tracking.store import TrackingStore, open_store
from sweeps.tracking.tracker import Tracker
from tests.support.data_folders import write_folder_dataset
from unetexp.component import flatten
from unetexp.data import Dataset, open_dataset
from unetexp.models.saved_model import model_spec, save_model
from unetexp.training.config import TrainConfig

RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  optimizer: {kind: adamw, lr: 5.0e-3}
  batch_size: 4
  epochs: 1
space:
  decoder.upsampling: {kind: choice, values: [bilinear, nearest]}
  loss.kind: {kind: choice, values: [cross_entropy, focal]}
  loss.gamma: {kind: uniform, low: 1, high: 3, when: {loss.kind: focal}}
budget: {trials: 9}
"""
VALUES = {"decoder.upsampling": "bilinear", "loss.kind": "cross_entropy"}
SIZE = (32, 32)


@dataclass(frozen=True)
class Trial:
    """A trial to create."""

    score: float
    model: Path | None = None  # the folder of its weights
    stop_reason: str = "completed"
    values: dict | None = None
    latency_ms: float = 10.0  # as its worker measured


class Place:
    """A folder with data, a tracking store and models."""

    def __init__(
        self, root: Path, splits=None, class_names=("back", "cell", "wall"), uri=None
    ) -> None:
        self.root, self.uri = root, uri or f"sqlite:///{root}/mlflow.db"
        splits = splits or {"train": 8, "val": 3, "test": 6}
        self.data_root = root / "data"
        write_folder_dataset(
            self.data_root, splits, SIZE, len(class_names), class_names=class_names, seed=3
        )
        (root / "small.yaml").write_text(RECIPE)

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(str(self.root / "small.yaml"), {}, str(self.data_root))

    @cached_property
    def data(self) -> Dataset:
        return open_dataset(self.recipe.base.data)

    @cached_property
    def store(self) -> TrackingStore:
        return open_store(self.uri)

    def config(self, **changes) -> TrainConfig:
        return self.recipe.config({**VALUES, **changes})

    def model(self, answer: int) -> Path:
        """A model that predicts class `answer` everywhere: the background scores best."""
        folder = self.root / "models" / f"all-{answer}"
        folder.mkdir(parents=True)
        config, data = self.config(), self.data
        model = model_spec(config, data).build()
        torch.nn.init.zeros_(model.head.weight)
        model.head.bias = torch.nn.Parameter(torch.eye(data.num_classes)[answer])
        save_model(folder, model, config, data, epoch=1)
        return folder

    def sweep(self, name: str, *trials: Trial, ended: str = "completed", recipe=None) -> Tracker:
        """A sweep with these trials, numbered from 0000."""
        recipe, data = recipe or self.recipe, self.data
        tracker = Tracker(self.store)
        tracker.start_sweep(
            name,
            storage=str(self.root / "runs" / name),
            goals=recipe.goals,
            tags={
                "data.fingerprint": data.fingerprint,
                "git.commit": "0123abc",
                "git.dirty": True,
                "version.torch": torch.__version__,
            },
            artifacts={
                "recipe.yaml": yaml.safe_dump(recipe.tree()),
                "data.json": json.dumps(data.summary()),
            },
        )
        for number, trial in enumerate(trials):
            self._add(tracker, f"{number:04d}", trial, recipe)
        tracker.end_sweep(ended)
        return tracker

    def _add(self, tracker: Tracker, trial_id: str, trial: Trial, recipe: Recipe) -> None:
        config = recipe.config({**VALUES, **(trial.values or {})})
        tracker.start_trial(trial_id, f"small-{trial_id}", flatten(config.tree()))
        metrics = {recipe.goals.score: trial.score, "time/latency_ms": trial.latency_ms}
        tracker.log_epoch(trial_id, 1, metrics)
        (self.root / "config.yaml").write_text(yaml.safe_dump(config.tree()))
        tracker.log_artifacts(trial_id, self.root / "config.yaml")
        tracker.end_trial(trial_id, trial.stop_reason)
        if trial.model:
            tracker.log_checkpoint(trial_id, trial.model)
