"""Preparing a training sample on one core: ours, torchvision v2's and albumentations' in turns.

    python -m benchmarks.data            512 px, about a minute
    python -m benchmarks.data --quick    the same with fewer rounds

A sample is a crop that is flipped and rotated by up to 10 degrees, cut out of an image that is
decoded and mapped into memory: (3, P, P) float32, normalised, and (P, P) int64. The peers first cut
out the window that holds the rotated crop, as their tuned users do. Ours has two parts: the window
is cut out on the host, and the rest is computed on the device: a GPU takes the whole batch at once,
the CPU, here, one sample after the other.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.peers.images import made_dataset  # noqa: E402
from benchmarks.peers.loops import Combination  # noqa: E402
from benchmarks.peers.ours import WholeStep, our_config  # noqa: E402
from benchmarks.peers.report import about, figures_table, heading, write_json  # noqa: E402
from benchmarks.peers.rounds import Arm, Spread, Times, interleaved, ratio  # noqa: E402
from unetexp.data import Dataset, Split  # noqa: E402
from unetexp.models.weights.resolution import input_normalization  # noqa: E402
from unetexp.training.augmenting.augmentation import Augment  # noqa: E402
from unetexp.training.batches.train_batches import TrainBatches, augmented  # noqa: E402
from unetexp.training.config import TrainConfig  # noqa: E402

BATCH, IMAGES, ROTATION_DEG = 8, 16, 10.0
HOST, WHOLE = "ours, window on the host", "ours, whole sample on the CPU"
TORCHVISION, ALBUMENTATIONS = "torchvision v2", "albumentations"
TARGET_MS = 1.5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Sample = tuple[torch.Tensor, torch.Tensor]


def geometry(px: int) -> Augment:
    """Crop, flip and rotation; no zoom and no colour."""
    return Augment(
        crop_px=px,
        zoom_min=1.0,
        zoom_max=1.0,
        rotation_deg=ROTATION_DEG,
        brightness=0.0,
        contrast=0.0,
    )


def our_arms(data: Dataset, px: int, batches: int) -> dict[str, Arm]:
    """Our arms, `batches` batches a round."""
    config = our_config(Combination(), px=px, batch=BATCH)
    config = config.model_copy(update={"augment": geometry(px)})

    def raw() -> Any:
        return our_batches(data, config, batches)

    def host() -> None:
        for _ in raw():
            pass

    normalization, cpu = input_normalization(config.encoder, data.channels), torch.device("cpu")

    def whole() -> None:
        for batch in raw():
            augmented(batch, data, px, normalization, cpu)

    return {HOST: _per_sample(host, batches * BATCH), WHOLE: _per_sample(whole, batches * BATCH)}


def our_batches(data: Dataset, config: TrainConfig, count: int) -> Any:
    """The first `count` raw batches of an epoch."""
    return islice(TrainBatches(data["train"], config).epoch(1), count)


def _per_sample(work: Callable[[], None], samples: int) -> Arm:
    def a_round() -> float:
        started = time.process_time()  # of the core: other work on the machine does not count
        work()
        return (time.process_time() - started) / samples

    return a_round


def peer_arms(data: Dataset, px: int, samples: int) -> dict[str, Arm]:
    """The same for those peers that are installed."""
    window = geometry(px).window_px
    makers = {TORCHVISION: torchvision_sample(px, window)}
    if find_spec(ALBUMENTATIONS):
        makers[ALBUMENTATIONS] = albumentations_sample(px, window)

    def arm(make: Callable[[Split, int], Sample]) -> Arm:
        def work() -> None:
            for number in range(samples):
                make(data["train"], number % len(data["train"]))

        return _per_sample(work, samples)

    return {name: arm(make) for name, make in makers.items()}


def _random_window(split: Split, index: int, side: int) -> Sample:
    height, width = split.shapes[index]
    top, left = random.randint(0, height - side), random.randint(0, width - side)
    return split.window(index, top, left, side, side)


def torchvision_sample(px: int, window: int) -> Callable[[Split, int], Sample]:
    """torchvision.transforms.v2 on uint8 tensors."""
    from torchvision import tv_tensors
    from torchvision.transforms import InterpolationMode, v2

    transform = v2.Compose(
        [
            v2.RandomRotation(
                ROTATION_DEG,
                interpolation=InterpolationMode.BILINEAR,
                fill={tv_tensors.Image: 0, tv_tensors.Mask: 255},
            ),
            v2.CenterCrop(px),
            v2.RandomHorizontalFlip(),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def make(split: Split, index: int) -> Sample:
        image, mask = _random_window(split, index, window)
        image, mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image, mask.long()

    return make


def albumentations_sample(px: int, window: int) -> Callable[[Split, int], Sample]:
    """albumentations on numpy arrays, by OpenCV in one thread."""
    import albumentations
    import cv2

    cv2.setNumThreads(1)
    transform = albumentations.Compose(
        [
            albumentations.Rotate(
                ROTATION_DEG, border_mode=cv2.BORDER_CONSTANT, fill_mask=255, p=1
            ),
            albumentations.CenterCrop(px, px),
            albumentations.HorizontalFlip(),
            albumentations.Normalize(MEAN, STD),
        ]
    )

    def make(split: Split, index: int) -> Sample:
        image, mask = _random_window(split, index, window)
        changed = transform(
            image=np.ascontiguousarray(image.numpy().transpose(1, 2, 0)), mask=mask.numpy()
        )
        pixels = torch.from_numpy(changed["image"].transpose(2, 0, 1).copy())
        return pixels, torch.from_numpy(changed["mask"]).long()

    return make


def measured(px: int, rounds: int, batches: int) -> Times:
    """Seconds of one core per sample, of each arm and round."""
    side = geometry(px).window_px + px // 4
    with made_dataset(max(IMAGES, BATCH * batches), (side, side + px // 4)) as data:
        arms = our_arms(data, px, batches) | peer_arms(data, px, batches * BATCH)
        return interleaved(arms, rounds)


def waiting_share(px: int, batch: int, epochs: int) -> float:
    """The share of a small training's time in which it waits for raw batches, made on demand."""
    with made_dataset(4 * batch, (px * 3 // 2, px * 3 // 2)) as data:
        config = our_config(Combination("fp32", "channels_last"), px=px, batch=batch)
        whole = WholeStep(config, data, torch.device("cpu"))
        for _ in range(epochs):
            whole()
    return whole.waiting_share


def table(times: Times, px: int, share: float) -> str:
    """The figures as Markdown."""
    spreads = {name: Spread.of([1e3 * s for s in values]) for name, values in times.items()}
    absent = None if ALBUMENTATIONS in times else [(ALBUMENTATIONS, None, "ms", None)]
    rows = [
        (f"{px} px sample, {name}", spread.median, "ms", TARGET_MS if name == WHOLE else None)
        for name, spread in spreads.items()
    ]
    for peer in (TORCHVISION, ALBUMENTATIONS):
        if peer in times:
            spread = ratio(times, peer, WHOLE).spread
            what = f"{peer} / ours, quartiles {spread.low:.2f} to {spread.high:.2f}"
            rows.append((what, spread.median, "", None))
    rows.append(("share of training spent waiting for raw batches", 100 * share, "%", 2.0))
    return figures_table([*rows, *(absent or [])])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--px", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=4, help="of 8 samples, per round")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", type=Path, help="write all times there")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.batches = 5, 2
    torch.set_num_threads(1)
    facts = about(torch.device("cpu"))
    print(f"## Data\n\n{heading(facts)}\n", flush=True)
    times = measured(options.px, options.rounds, options.batches)
    share = waiting_share(min(options.px, 96), 8 if options.px >= 96 else 2, 3)
    print(table(times, options.px, share))
    if ALBUMENTATIONS not in times:
        print("\nalbumentations is not installed: pip install 'unetexp[bench]'.")
    write_json(options.json, {"about": facts, "seconds_per_sample": times, "waiting_share": share})


if __name__ == "__main__":
    main()
