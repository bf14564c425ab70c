"""Segmentation metrics: one confusion matrix, and every metric derived from it.

With TP a class's diagonal element, ROW its target pixels and COLUMN its predicted pixels:
IoU = TP / (ROW + COLUMN - TP), Dice = 2 TP / (ROW + COLUMN), accuracy = sum TP / all pixels.
Void pixels are not counted. Means are over the classes that occur in prediction or target; the
others are NaN and listed as absent. The batch size does not affect the metrics.

Letters: N batch, K classes, H W height and width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unetexp.compute.on_device import on_host
from unetexp.data.label_tensors import is_integer, stray_pixels
from unetexp.data.labels import VOID, stray_labels
from unetexp.errors import ConfigError, DataError

_BLOCK_PIXELS = 2**21  # counted at once, at about 60 bytes each
_NO_LOWEST, _NO_HIGHEST = torch.iinfo(torch.int64).max, torch.iinfo(torch.int64).min


class SegmentationMetrics(Metric):
    """mIoU, Dice and pixel accuracy of a whole set, updated batch by batch.

    A `torchmetrics.Metric`: in a process group `compute` sums over the ranks. The counts stay on
    the device of the targets. On the CPU what cannot be counted is refused at once; on another
    device nothing waits for it, and `compute` refuses.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    _confusion: Tensor  # (K, K) int64
    _image_dice: Tensor  # (2,) float64: the sum of the images' mean Dice, and their number
    _lowest_stray: Tensor  # (2,) int64: of target and prediction, labels that are no class
    _highest_stray: Tensor
    _nan_pixels: Tensor  # () int64
    _matrices: list[Tensor]  # (N, K, K) int64 each

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = VOID,
        class_names: Sequence[str] | None = None,
        *,
        keep_matrices: bool = False,
        **options: Any,
    ) -> None:
        """Pixels whose target is `ignore_index` are left out.

        `keep_matrices`: a second state holds each image's own matrix, 8 K^2 bytes an image.
        `options` are those of `torchmetrics.Metric`. Raises ConfigError unless each class has one
        name and the names differ.
        """
        if num_classes < 1:
            raise ConfigError(f"num_classes: {num_classes} is given, at least 1 is needed.")
        names = [str(k) for k in range(num_classes)] if class_names is None else list(class_names)
        if len(names) != num_classes or len(set(names)) != num_classes:
            raise ConfigError(
                f"class_names: {len(names)} names ({', '.join(names)}) are given for "
                f"{num_classes} classes: give each class a name of its own."
            )
        super().__init__(**{"compute_with_cache": False, **options})
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.class_names = tuple(names)
        self.keep_matrices = keep_matrices
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("_confusion", matrix, "sum")
        self.add_state("_image_dice", torch.zeros(2, dtype=torch.float64), "sum")
        self.add_state("_lowest_stray", torch.full((2,), _NO_LOWEST), "min")
        self.add_state("_highest_stray", torch.full((2,), _NO_HIGHEST), "max")
        self.add_state("_nan_pixels", torch.zeros((), dtype=torch.int64), "sum")
        if keep_matrices:
            self.add_state("_matrices", [], "cat")

    @property
    def confusion_matrix(self) -> Tensor:
        """Pixels counted so far (K, K), int64 on the CPU: rows are the target."""
        return self._confusion.to("cpu", copy=True)

    @property
    def image_matrices(self) -> Tensor:
        """Each image's own confusion matrix (I, K, K), int64 on the CPU, as counted so far.

        Raises ConfigError without `keep_matrices`.
        """
        if not self.keep_matrices:
            raise ConfigError("the images' matrices are kept only with keep_matrices=True.")
        none = self._confusion.new_empty(0, self.num_classes, self.num_classes)
        return torch.cat([none, *_parts(self._matrices)]).cpu()

    def update(self, prediction: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        """Count a batch: logits (N, K, H, W) or labels (N, H, W), and the target (N, H, W).

        Labels are of an integer type. Returns each image's own confusion matrix (N, K, K) int64,
        on the target's device. Raises DataError for shapes that do not match and, on the CPU, for
        a label that is not a class and for NaN logits; such a batch is not counted.
        """
        self._check_shapes(prediction, target)
        self._follow(target.device)
        counts = torch.zeros((), dtype=torch.int64, device=target.device)
        step = max(1, _BLOCK_PIXELS // max(1, len(target) * target.shape[2]))
        for top in range(0, max(1, target.shape[1]), step):
            rows = slice(top, top + step)
            counts = counts + self._counted(prediction[..., rows, :], target[:, rows])
        _, dice = _overlaps(counts)
        scores = dice.nanmean(dim=1)
        # new tensors: these may be inference tensors
        self._image_dice = self._image_dice + torch.stack(
            [scores.nansum(), scores.isfinite().sum(dtype=torch.float64)]
        )
        self._confusion = self._confusion + counts.sum(dim=0)
        if self.keep_matrices:
            self._matrices.append(counts)
        return counts

    def _counted(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One confusion matrix per image (N, K, K), of some rows: all at once takes much memory."""
        truth = target.long()
        stray = stray_pixels(truth, self.num_classes, self.ignore_index, where="target")
        valid = (truth != self.ignore_index) & ~stray
        labels, stray_predicted, nan = self._predicted(prediction, valid)
        if not on_host(truth):
            valid &= ~stray_predicted
            self._remember([truth, labels], [stray, stray_predicted], nan)
        return self._count(labels, truth, valid)

    def merge(self, other: SegmentationMetrics) -> None:
        """Add the counts of `other`, as if its batches had been counted here."""
        own = self._matrices if self.keep_matrices else []
        self.merge_state(other)
        if self.keep_matrices:  # torchmetrics puts those of `other` first
            self._matrices = own + self._matrices[: len(other._matrices)]
        self._update_count += other._update_count

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """As `torchmetrics.Metric`; ConfigError for metrics of other classes or void labels."""
        if isinstance(incoming_state, SegmentationMetrics):
            ours, theirs = self._meaning(), incoming_state._meaning()
            if ours != theirs:
                raise ConfigError(
                    "metrics of different classes or void labels cannot be merged, nor those that "
                    f"keep matrices with those that do not: {ours} and {theirs}."
                )
            incoming_state = incoming_state.clone().to(self.device)
        super().merge_state(incoming_state)

    def _meaning(self) -> dict[str, object]:
        names = ("class_names", "ignore_index", "keep_matrices")
        return {name: getattr(self, name) for name in names}

    def compute(self) -> dict[str, Any]:
        """The metrics of everything counted so far, as Python floats; NaN where undefined.

        miou, dice (means over the classes that occur), pixel_accuracy, iou/<class> and
        dice/<class>, absent (the names of the classes that do not occur), and dice_per_image:
        the mean over images of each image's own mean Dice, images with no valid pixel left out.
        Raises DataError if a batch on another device than the CPU held NaN logits or a label that
        is not a class.
        """
        self._refuse_remembered()
        confusion = self._confusion.cpu()
        iou, dice = _overlaps(confusion)
        pixels = int(confusion.sum())
        dice_sum, images = self._image_dice.tolist()
        found: dict[str, Any] = {
            "miou": float(iou.nanmean()),
            "dice": float(dice.nanmean()),
            "pixel_accuracy": int(confusion.trace()) / pixels if pixels else math.nan,
            "dice_per_image": dice_sum / images if images else math.nan,
        }
        named = list(zip(self.class_names, iou.tolist(), dice.tolist(), strict=True))
        found |= {f"iou/{name}": value for name, value, _ in named}
        found |= {f"dice/{name}": value for name, _, value in named}
        found["absent"] = [name for name, value, _ in named if math.isnan(value)]
        return found

    def _check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        if target.ndim != 3 or not is_integer(target):
            raise DataError(
                "target: expected integer labels (N, H, W), got "
                f"{target.dtype} {tuple(target.shape)}."
            )
        images, *size = target.shape
        logits = prediction.is_floating_point()
        expected = (images, self.num_classes, *size) if logits else (images, *size)
        if tuple(prediction.shape) != expected or prediction.is_complex():
            raise DataError(
                f"prediction: expected {'logits' if logits else 'integer labels'} {expected} for "
                f"a target {tuple(target.shape)}, got {prediction.dtype} {tuple(prediction.shape)}."
            )

    def _predicted(self, prediction: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The predicted labels int64, 0 where not `valid`; and where they are no class, or NaN.

        All (N, H, W).
        """
        if prediction.is_floating_point():
            highest, labels = prediction.max(dim=1)
            nan = highest.isnan() & valid
            if on_host(nan) and nan.any():
                raise _diverged()
            return labels.where(valid, 0), torch.zeros_like(valid), nan
        labels = prediction.long().where(valid, 0)
        stray = stray_pixels(labels, self.num_classes, void=None, where="prediction")
        return labels, stray, torch.zeros_like(valid)

    def _follow(self, device: torch.device) -> None:
        """Count on `device` from now on; `to` would wait for it."""
        if self._confusion.device == device:
            return
        for name, state in self.metric_state.items():
            moved = [part.to(device, non_blocking=True) for part in _parts(state)]
            setattr(self, name, moved if isinstance(state, list) else moved[0])
        self._device = device

    def _remember(self, labels: Sequence[Tensor], stray: Sequence[Tensor], nan: Tensor) -> None:
        """Keep on the device what `compute` has to refuse."""
        if not nan.numel():
            return
        pairs = list(zip(labels, stray, strict=True))
        lowest = torch.stack([values.where(bad, _NO_LOWEST).amin() for values, bad in pairs])
        highest = torch.stack([values.where(bad, _NO_HIGHEST).amax() for values, bad in pairs])
        self._lowest_stray = torch.minimum(self._lowest_stray, lowest)
        self._highest_stray = torch.maximum(self._highest_stray, highest)
        self._nan_pixels = self._nan_pixels + nan.sum()

    def _refuse_remembered(self) -> None:
        extremes = torch.stack([self._lowest_stray, self._highest_stray], dim=1).tolist()
        for where, void, (lowest, highest) in zip(
            ("target", "prediction"), (self.ignore_index, None), extremes, strict=True
        ):
            if lowest <= highest:
                raise stray_labels(sorted({lowest, highest}), self.num_classes, void, where)
        if self._nan_pixels:
            raise _diverged()

    def _count(self, labels: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """One confusion matrix per image: (N, K, K) int64. Other pixels count in a row K.

        `bincount` would be no faster on a CPU, and waits for a GPU.
        """
        n, k = len(truth), self.num_classes
        image = torch.arange(n, device=truth.device).view(-1, 1, 1)
        rows = truth.where(valid, k).add_(image * (k + 1))
        cells = rows.mul_(k).add_(labels.where(valid, 0)).flatten()
        counts = torch.zeros(n * (k + 1) * k, dtype=torch.int64, device=truth.device)
        counts.scatter_add_(0, cells, counts.new_ones(()).expand(len(cells)))
        return counts.view(n, k + 1, k)[:, :k]

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if self.keep_matrices and not self._matrices:
            # torchmetrics would send the other ranks an empty tensor of another type and shape
            self._matrices = [self._confusion.new_empty(0, *self._confusion.shape)]
        super()._sync_dist(*args, **kwargs)

    def _wrap_update(self, update: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """torchmetrics' wrapper, which returns nothing, with the matrices returned."""
        returned: list[Tensor] = []

        def keep(*args: Any, **kwargs: Any) -> None:
            returned.append(update(*args, **kwargs))

        counted = super()._wrap_update(keep)

        @functools.wraps(update)
        def updated(*args: Any, **kwargs: Any) -> Tensor:
            counted(*args, **kwargs)
            return returned.pop()

        return updated

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """torchmetrics' wrapper, which warns where nothing is counted yet, without the warning."""
        synchronised = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def computed(*args: Any, **kwargs: Any) -> Any:
            counted = self._update_count
            self._update_count = max(counted, 1)
            try:
                return synchronised(*args, **kwargs)
            finally:
                self._update_count = counted

        return computed


def _parts(state: Tensor | list[Tensor]) -> list[Tensor]:
    """torchmetrics makes one tensor of a list of them when it synchronises."""
    return [state] if isinstance(state, Tensor) else state


def _diverged() -> DataError:
    return DataError("prediction: there are NaN logits: the model has diverged.")


def mean_iou(confusion: Tensor) -> Tensor:
    """mIoU (...) float64 of confusion matrices (..., K, K); NaN if there is no valid pixel."""
    iou, _ = _overlaps(confusion)
    return iou.nanmean(dim=-1)


def _overlaps(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and Dice (..., K) float64 of confusion matrices (..., K, K); NaN for absent classes."""
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    sizes = (confusion.sum(dim=-1) + confusion.sum(dim=-2)).double()
    return hits / (sizes - hits), 2 * hits / sizes
