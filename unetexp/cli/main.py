"""`unetexp`: one experiment and its model on the command line, without any sweep."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unetexp.cli.command_line import Command, Group
from unetexp.cli.data import app as data_app
from unetexp.cli.evaluate import evaluate
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.export import export
from unetexp.cli.open_data import open_aloud
from unetexp.cli.options import CacheGb, Device, limit_cache
from unetexp.cli.predict import predict
from unetexp.cli.reproduce import reproduce
from unetexp.cli.serve import serve
from unetexp.cli.tune import tune
from unetexp.compute.device import limit_threads, pick_device
from unetexp.data.layouts.paragraph import paragraph
from unetexp.data.sources.recognised import recognised_tree
from unetexp.errors import ConfigError
from unetexp.models.weights.resolution import resolve_weights
from unetexp.training.config import SPREAD, TrainConfig, decode_config, parse_assignments, read_tree
from unetexp.training.experiment import BEST, Experiment, has_model
from unetexp.training.pictures import draw_curves

SPLITS_FILE = "splits.json"  # the names, and groups, of the images of each split

app = typer.Typer(
    cls=Group, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True
)


@app.callback()
def unetexp() -> None:
    """Train segmentation models and use them."""


app.command(cls=Command)(predict)
app.command(cls=Command)(evaluate)
app.command(cls=Command)(tune)
app.command(cls=Command)(export)
app.command(cls=Command)(reproduce)
app.command(cls=Command)(serve)
app.add_typer(data_app, name="data", cls=Group)


@app.command(cls=Command)
def train(
    config: Annotated[Path | None, typer.Argument(help="A YAML file of settings.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A folder of images and masks in any usual layout, a CSV or Parquet table that "
            "names them, or a kind such as mni152.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Passes over the training images.", show_default="the file's"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the results.", show_default="experiments/TIME"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a setting. Repeatable."),
    ] = None,
    device: Device = "auto",
    cache_gb: CacheGb = None,
) -> None:
    """Train one model. Called again with the same --out, it continues where it was stopped."""
    with exit_codes():
        limit_cache(cache_gb)
        changes = parse_assignments(set_ or [])
        tree = read_tree(config) if config else {}
        if data is not None:
            tree["data"] = recognised_tree(data, changes)
        if epochs is not None:
            changes["epochs"] = epochs
        folder = out or Path("experiments") / time.strftime("%Y%m%d-%H%M%S")
        _train(decode_config(tree, changes), folder, device)


def _train(config: TrainConfig, folder: Path, device: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    chosen = pick_device(device)
    limit_threads()
    dataset = open_aloud(config.data, console)
    weights = resolve_weights(config.encoder, in_channels=dataset.channels)
    if weights.warning:
        console.print(f"note: {weights.warning}", style="yellow", markup=False)
    config = config.model_copy(update={"encoder": weights.encoder})
    _require_unfinished(folder)
    experiment = Experiment(config, dataset, folder, chosen)
    said = [paragraph(config.data, dataset), *(f"note: {note}" for note in dataset.notes)]
    (folder / "data.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
    (folder / SPLITS_FILE).write_text(json.dumps(dataset.members(), indent=1), encoding="utf-8")
    if dataset.folds:
        console.print(f"cross-validation: {len(dataset.folds)} models, one for each fold")
    started = experiment.state.initial_weights
    console.print(f"encoder weights: {started.describe()}", markup=False)
    if experiment.state.epoch:
        console.print(f"continuing after epoch {experiment.state.epoch}")
    workers = 4 if chosen.type == "cuda" else 0
    try:
        _show_epochs(experiment, workers, console)
    except KeyboardInterrupt:
        console.print(f"to continue: run the same command, with --out {folder}", markup=False)
        raise
    best = experiment.state.history[experiment.state.best_epoch - 1]
    console.print(f"best val/miou {_score(best, 'val/miou')}, model in {folder / BEST}")


def _show_epochs(experiment: Experiment, workers: int, console: Console) -> None:
    for report in experiment.run(workers):
        metrics = report.metrics
        console.print(
            f"epoch {report.epoch}/{experiment.config.epochs}  loss {metrics['train/loss']:.4f}  "
            f"val/miou {_score(metrics, 'val/miou')}  val/dice {_score(metrics, 'val/dice')}  "
            f"{metrics['time/train_s'] + metrics['time/val_s']:.1f} s"
            + ("  best" if report.improved else "")
        )
        draw_curves(experiment.folder / "curves.png", experiment.state.history)


def _score(metrics: Mapping[str, float], name: str) -> str:
    """The value, with its spread where it is a mean over folds."""
    spread = f" ± {metrics[name + SPREAD]:.4f}" if name + SPREAD in metrics else ""
    return f"{metrics[name]:.4f}{spread}"


def _require_unfinished(folder: Path) -> None:
    if has_model(folder) and not any(folder.glob("epoch-*")):
        raise ConfigError(f"--out {folder}: a finished experiment is there. Choose another folder.")
