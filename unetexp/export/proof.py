"""The proof of an exported file: its figures on real images beside those of the PyTorch model.

N batch, C channels, H W image size.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import Field

from unetexp.component import Component
from unetexp.data import Dataset
from unetexp.errors import GateError
from unetexp.inference.evaluation import assess, samples_of
from unetexp.inference.predictor import Predictor
from unetexp.metrics.latency import interleaved_ms
from unetexp.models.saved_model import ModelSpec
from unetexp.models.unet import UNet
from unetexp.runtimes.network import RuntimeNetwork
from unetexp.runtimes.runtime import Runtime
from unetexp.training.config import TrainConfig

_CLASSES_NAMED = 5
_CPU = torch.device("cpu")


class Figures(Component):
    """Of one model on the images."""

    name: str
    miou: float | None
    iou: dict[str, float | None] = Field(description="of each class; null: it does not occur")
    latency_ms: float = Field(description="of one image, median")


class Proof(Component):
    """An exported file beside the PyTorch model that it was made of, eager and in fp32."""

    split: str
    images: int
    latency_size: tuple[int, int] = Field(description="height and width of the timed image")
    threads: int
    pytorch: Figures
    exported: Figures
    equal_pixels: float = Field(ge=0, le=1, description="share of pixels with the same label")

    @property
    def lost_points(self) -> float:
        """By how many points of mIoU the file is worse; negative if it is better."""
        return _lost(self.pytorch.miou, self.exported.miou)

    def require(self, max_drop: float, where: str) -> None:
        """Raise GateError, naming the classes that lost, if it is worse by more points."""
        if self.lost_points <= max_drop:
            return
        raise GateError(
            f"{where}: mIoU on {self.split} falls by {self.lost_points:.2f} points, from "
            f"{_shown(self.pytorch.miou)} to {_shown(self.exported.miou)}, and --max-drop allows "
            f"{max_drop:g}. {self._losers()} Nothing was written. Choose another --precision, or "
            "allow more with --max-drop."
        )

    def lost_by_class(self) -> list[tuple[str, float]]:
        """Points of IoU that each class lost, the greatest loss first."""
        lost = {
            name: _lost(before, self.exported.iou[name])
            for name, before in self.pytorch.iou.items()
            if before is not None
        }
        return sorted(lost.items(), key=lambda item: -item[1])

    def metrics(self) -> dict[str, float]:
        """What is tracked of it."""
        found = {
            "miou": self.exported.miou,
            "pytorch_miou": self.pytorch.miou,
            "equal_pixels": self.equal_pixels,
            "latency_ms": self.exported.latency_ms,
            "pytorch_latency_ms": self.pytorch.latency_ms,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _losers(self) -> str:
        named = [
            f"{name} {points:.2f} points ({_shown(self.pytorch.iou[name])} to "
            f"{_shown(self.exported.iou[name])})"
            for name, points in self.lost_by_class()[:_CLASSES_NAMED]
            if points > 0
        ]
        return f"Classes that lost: {', '.join(named) or 'none'}."


@dataclass(frozen=True)
class Reference:
    """The PyTorch model on the images, to be compared with several files."""

    model: UNet
    spec: ModelSpec
    train: TrainConfig
    data: Dataset  # at the model's working size
    split: str

    def compared_with(self, runtime: Runtime) -> Proof:
        """The proof of a file that was made of this model."""
        network = RuntimeNetwork(runtime)
        config = self.train.model_copy(update={"precision": "fp32"})
        samples = samples_of(self.data, self.split, self.spec)
        every = range(len(samples))
        ours, theirs = (
            assess(each, self.spec, self.data, self.split, _CPU, train=config, worst=0, keep=every)
            for each in (self.model, network)
        )
        equal = sum(int((ours.labels[n] == theirs.labels[n]).sum()) for n in every)
        size = statistics.mode(samples.shapes)
        timed = samples[samples.shapes.index(size)].image
        at_size = self.spec.model_copy(update={"resize": None})
        passes = [Predictor(each, at_size) for each in (self.model, runtime)]
        eager_ms, exported_ms = interleaved_ms([partial(each.labels, timed) for each in passes])
        return Proof(
            split=self.split,
            images=len(samples),
            latency_size=size,
            threads=torch.get_num_threads(),
            pytorch=_figures("PyTorch fp32", ours.metrics, self.spec, eager_ms),
            exported=_figures(runtime.description.title, theirs.metrics, self.spec, exported_ms),
            equal_pixels=equal / sum(labels.numel() for labels in ours.labels.values()),
        )


def _figures(name: str, metrics: dict[str, float], spec: ModelSpec, latency_ms: float) -> Figures:
    return Figures(
        name=name,
        miou=_number(metrics["miou"]),
        iou={each: _number(metrics[f"iou/{each}"]) for each in spec.class_names},
        latency_ms=latency_ms,
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _lost(before: float | None, after: float | None) -> float:
    """Points; everything if there is no value any more."""
    return 100 * ((before or 0.0) - (after or 0.0))


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
