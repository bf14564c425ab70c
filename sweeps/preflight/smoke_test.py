"""Every choice of a recipe tried once in miniature, before a sweep spends anything on it.

One forward, backward, optimiser step, validation and checkpoint round trip a choice, on a few
images of at most 64 px: what a choice cannot do at all is found in a second, not in hours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import torch

from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, Space, search_order
from unetexp.data import Dataset, Split
from unetexp.data.decoded.split_table import SplitTable
from unetexp.errors import NonFiniteLossError, UserError
from unetexp.system.machine import give_back_freed_memory
from unetexp.training.config import TrainConfig
from unetexp.training.loop import fit
from unetexp.training.state import TrainState

SIDE_PX = 64
_IMAGES = 2  # a micro-batch's, at most: batch norm refuses one image that shrinks to one pixel


def smoke_configs(recipe: Recipe) -> dict[str, TrainConfig]:
    """`path=choice` -> the base with that choice and what its conditions ask; equal ones once.

    Raises UserError naming the choice that the base cannot have.
    """
    found = {"the base configuration": recipe.base}
    for path in search_order(recipe.space):  # a kind is blamed before the settings it has
        dimension = recipe.space[path]
        if isinstance(dimension, Choice):
            for value in dimension.values:
                found[f"{path}={value}"] = _chosen(recipe, path, value)
    distinct: dict[str, TrainConfig] = {}
    for label, config in found.items():
        if config not in distinct.values():
            distinct[label] = config
    return distinct


def smoke_test(
    configs: Mapping[str, TrainConfig],
    data: Dataset,
    device: torch.device,
    patience_s: float,
    at_once: int = 1,
) -> list[str]:
    """Try each config in miniature, `at_once` side by side.

    Returns the labels that `patience_s` did not suffice for. Raises UserError naming the choice
    and the cause.
    """
    until = time.monotonic() + patience_s

    def in_time(label: str) -> bool:
        if time.monotonic() >= until:
            return False
        try:
            _rehearse(shrunk(configs[label]), data, device)
        except NonFiniteLossError:
            pass  # one step on a pinhole of the data does not tell how a rate fares on all of it
        except Exception as error:
            raise _cannot_train(label, error) from error
        finally:
            give_back_freed_memory()
        return True

    # A new thread would compute with as many threads as there are cores, whatever this one does.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(at_once, "smoke-test", torch.set_num_threads, (threads,)) as pool:
        tried = list(pool.map(in_time, configs))
    return [label for label, done in zip(configs, tried, strict=True) if not done]


@contextmanager
def miniature(
    data: Dataset, train: int, val: int, longest_px: int | None = None
) -> Iterator[Dataset]:
    """A data set of the first images of `data`, thinned to `longest_px` where they are longer.

    Pixels are dropped, not averaged, so that labels stay labels. The counts of classes are those
    of the whole set, because losses weigh by them.
    """
    with TemporaryDirectory(prefix="unetexp-preflight-") as folder:
        splits = {
            name: _thinned(data[name], Path(folder), name, count, longest_px)
            for name, count in (("train", train), ("val", val))
        }
        yield replace(data, splits=splits, folds=())


def _chosen(recipe: Recipe, path: str, value: object) -> TrainConfig:
    needed = _conditions_of(recipe.space, recipe.fixed_values(), path)
    try:
        return recipe.config({**needed, path: value})
    except UserError as error:
        raise _cannot_train(f"{path}={value}", error) from None


def _conditions_of(space: Space, fixed: Mapping[str, Any], path: str) -> dict[str, Any]:
    """What must hold for `path` to be searched, as far as the base does not give it already."""
    needed: dict[str, Any] = {}
    for other, wanted in space[path].when.items():
        options = wanted if isinstance(wanted, list | tuple) else [wanted]
        if other in space:
            needed |= _conditions_of(space, fixed, other)
            options = [option for option in options if space[other].admits(option)]
        if fixed.get(other) not in options:
            needed[other] = options[0]
    return needed


def shrunk(config: TrainConfig) -> TrainConfig:
    """The config with an epoch of one step on small crops."""
    micro, accumulation = min(_IMAGES, config.micro_batch_size), min(2, config.accumulation)
    crop_px = min(SIDE_PX, config.augment.crop_px)
    return config.model_copy(
        update={
            "augment": config.augment.model_copy(update={"crop_px": crop_px}),
            "batch_size": micro * accumulation,
            "accumulation": accumulation,
            "epochs": 1,
        }
    )


def _rehearse(config: TrainConfig, data: Dataset, device: torch.device) -> None:
    with (
        miniature(data, config.batch_size, _IMAGES, SIDE_PX) as small,
        TemporaryDirectory(prefix="unetexp-preflight-") as folder,
    ):
        state = TrainState(config, small, device)
        next(fit(config, small, state))
        file = Path(folder) / "checkpoint"  # in memory it would be four times the model
        torch.save(state.state_dict(), file)
        trained = _checksums(state.model)
        for value in state.model.state_dict().values():
            value.zero_()
        saved = torch.load(file, map_location=device, weights_only=True, mmap=True)
        state.load_state_dict(saved)
        restored = _checksums(state.model)
        changed = [name for name in trained if trained[name] != restored[name]]
        if changed:
            raise RuntimeError(f"a checkpoint does not restore {', '.join(changed[:3])}")


def _checksums(model: torch.nn.Module) -> dict[str, int]:
    """CRC-32 of each of the model's tensors."""
    return {
        name: crc32(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        for name, value in model.state_dict().items()
    }


def _thinned(split: Split, folder: Path, name: str, count: int, longest_px: int | None) -> Split:
    samples = []
    for index in range(count):
        sample = split[index % len(split)]
        step = max(1, math.ceil(max(sample.mask.shape) / longest_px)) if longest_px else 1
        samples.append((sample.image[:, ::step, ::step], sample.mask[::step, ::step]))
    images = [image.numpy() for image, _ in samples]
    masks = [mask.numpy() for _, mask in samples]
    (folder / f"{name}.images").write_bytes(b"".join(image.tobytes() for image in images))
    (folder / f"{name}.masks").write_bytes(b"".join(mask.tobytes() for mask in masks))
    channels, bits = images[0].shape[0], 8 * images[0].itemsize
    table = SplitTable(
        names=tuple(f"{number:04d}" for number in range(count)),
        heights=tuple(mask.shape[0] for mask in masks),
        widths=tuple(mask.shape[1] for mask in masks),
        channels=(channels,) * count,
        bits=(bits,) * count,
        class_pixels=tuple(split.class_pixels.tolist()),
        void_pixels=split.void_pixels,
    )
    return Split(folder, name, table, channels, bits)


def _cannot_train(label: str, error: Exception) -> UserError:
    cause = str(error) or type(error).__name__
    if not isinstance(error, UserError):
        cause = f"{type(error).__name__}: {cause}"
    return UserError(
        f"{label} fails in one training step: {cause}\n"
        "Take it out of the recipe's space, or change what it does not go with. "
        "(--skip-preflight starts without this check.)"
    )
