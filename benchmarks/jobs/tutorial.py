"""The script that tutorials have: Ray Tune, OptunaSearch, MLflowLoggerCallback, and smp's U-Net.

Each trial trains `smp.Unet` with AdamW on random crops; Optuna proposes, ASHA stops, and the best
model by validation is judged on the test split. It starts from the same encoder weights and reads
the same splits as the other arms.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.jobs.job import Clock, Job, Outcome
from benchmarks.peers.plain_loop import random_crop, validate
from sweeps.driver.encoder_weights import settle_weights
from unetexp.data import Dataset, open_dataset
from unetexp.models.unet import build_unet
from unetexp.models.weights.resolution import (
    Normalization,
    input_normalization,
    load_encoder_weights,
    to_input,
)
from unetexp.training.config import TrainConfig, decode_config

ROOT = Path(__file__).resolve().parents[2]
_RESERVE = 0.1  # share of the time in which the last trials end and the best one is judged
_WEIGHTS = "best.safetensors"


def tutorial(job: Job, clock: Clock) -> Outcome:
    """As many trials as end within the time, two at once on a CPU, one at once on a GPU."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    recipe = job.recipe
    data = open_dataset(recipe.base.data)
    config = settle_weights(recipe, job.changes(), data.channels).apply(recipe).base
    gpu = torch.cuda.is_available()
    cores = os.cpu_count() or 1
    share = {"gpu": 1, "cpu": 1} if gpu else {"cpu": max(1, cores // 2)}
    ray.init(
        num_cpus=cores,
        include_dashboard=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_python_path())}},
    )
    try:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, tree=config.tree()), share),
            param_space={
                "lr": tune.loguniform(1e-4, 1e-2),
                "batch_size": tune.choice([4, 8, 16]),
                "loss": tune.choice(["cross_entropy", "dice"]),
                "weight_decay": tune.loguniform(1e-6, 1e-2),
            },
            tune_config=tune.TuneConfig(
                metric="val_miou",
                mode="max",
                search_alg=OptunaSearch(seed=job.seed),
                scheduler=ASHAScheduler(max_t=config.epochs, grace_period=_grace(config)),
                num_samples=-1,
                time_budget_s=(1 - _RESERVE) * clock.left,
            ),
            run_config=tune.RunConfig(
                name="tutorial",
                storage_path=str(job.folder),
                verbose=0,
                callbacks=[
                    MLflowLoggerCallback(
                        tracking_uri=f"sqlite:///{job.folder}/tutorial.db",
                        experiment_name="tutorial",
                    )
                ],
            ),
        )
        results = tuner.fit()
    finally:
        ray.shutdown()
    trials = [Path(result.path) for result in results]
    scored = {place: _score(place) for place in trials}
    best = max(scored, key=lambda place: scored[place])
    model = unet(config, data)
    model.load_state_dict(load_file(best / _WEIGHTS))
    normalization = input_normalization(config.encoder, data.channels)
    test = validate(model, data, normalization, "test")
    return Outcome(test, scored[best], f"{len(trials)} trials of up to {config.epochs} epochs")


def _python_path() -> list[str]:
    """Where workers find this module."""
    return [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]


def _grace(config: TrainConfig) -> int:
    return max(1, math.ceil(config.epochs / 3))


def _score(place: Path) -> float:
    """The best score of the trial whose files are there; -inf before its first epoch."""
    file = place / "best.txt"
    return float(file.read_text()) if file.exists() else -math.inf


def _trial(sampled: dict[str, Any], tree: dict[str, Any]) -> None:
    """One trial, in a worker."""
    from ray import tune

    config = decode_config(tree)
    data, place = open_dataset(config.data), Path(tune.get_context().get_trial_dir())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    model = unet(config, data).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=sampled["lr"], weight_decay=sampled["weight_decay"]
    )
    loss = _loss(sampled["loss"])
    normalization = input_normalization(config.encoder, data.channels)
    rng, best = np.random.default_rng(config.seed), -math.inf
    for _ in range(config.epochs):
        model.train()
        order = rng.permutation(len(data["train"]))
        size = sampled["batch_size"]
        for start in range(0, max(1, len(order) - size + 1), size):
            chosen = order[start : start + size]
            images, masks = _batch(chosen, config, data, normalization, rng)
            value = loss(model(images.to(device)), masks.to(device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        score = validate(model, data, normalization, device=device)
        if score > best:
            best = score
            save_file(
                {n: v.contiguous().cpu() for n, v in model.state_dict().items()}, place / _WEIGHTS
            )
            (place / "best.txt").write_text(str(score))
        tune.report({"val_miou": score})


def _batch(
    chosen: np.ndarray,
    config: TrainConfig,
    data: Dataset,
    normalization: Normalization,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops, flipped at random: (N, C, P, P) as the model takes them, and masks (N, P, P)."""
    crops = [random_crop(data, int(index), config.augment.crop_px, rng) for index in chosen]
    images = torch.stack([image for image, _ in crops]).float() / data.image_max
    masks = torch.stack([mask for _, mask in crops]).long()
    if rng.random() < 0.5:
        images, masks = images.flip(-1), masks.flip(-1)
    return to_input(images, normalization), masks


def _loss(name: str) -> torch.nn.Module:
    import segmentation_models_pytorch as smp

    if name == "dice":
        return smp.losses.DiceLoss(mode="multiclass", ignore_index=255)
    return torch.nn.CrossEntropyLoss(ignore_index=255)


def unet(config: TrainConfig, data: Dataset) -> torch.nn.Module:
    """smp's Unet with the encoder weights that the other arms start from."""
    import segmentation_models_pytorch as smp

    timm = config.encoder.kind == "timm"
    model = smp.Unet(
        f"tu-{config.encoder.name}" if timm else config.encoder.name,
        encoder_weights=None,
        in_channels=data.channels,
        classes=data.num_classes,
    )
    if config.encoder.weights != "none":
        ours = build_unet(config.encoder, config.decoder, data.num_classes, data.channels)
        load_encoder_weights(ours, config.encoder)
        start_alike(model.encoder.model if timm else model.encoder, ours.encoder)
    return model


def start_alike(theirs: torch.nn.Module, ours: torch.nn.Module) -> None:
    """Copy the weights of our encoder into theirs, which has the same layers in the same order.

    Names differ; RuntimeError where a shape does.
    """
    target, source = theirs.state_dict(), list(ours.state_dict().values())
    if [value.shape for value in target.values()] != [value.shape for value in source]:
        raise RuntimeError("smp's encoder is built otherwise than ours: its weights do not fit.")
    theirs.load_state_dict(dict(zip(target, source, strict=True)))
