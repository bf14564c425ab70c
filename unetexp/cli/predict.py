"""`unetexp predict`: label maps and overlays of image files and folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.options import Device, Flavor, TrackingUri
from unetexp.compute.device import limit_threads, pick_device
from unetexp.compute.tiling import OVERLAP_PX, TILE_PX
from unetexp.data.reading.input_form import AS_STORED
from unetexp.errors import ConfigError, UnetexpError, UserError
from unetexp.inference.input_images import Input, find_inputs, find_samples
from unetexp.inference.prediction_files import Results, make_folder, predict_file
from unetexp.inference.predictor import Predictor
from unetexp.inference.volumes import (
    VolumeInput,
    find_volumes,
    hold_volumes,
    predict_volume,
    volume_form,
)
from unetexp.loading import LoadedModel, load, trained_flips
from unetexp.tracking.uri import absolute


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder, a run's id, models:/NAME@ALIAS or models:/NAME/VERSION, or an "
            "exported file."
        ),
    ],
    inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")],
    overlay: Annotated[
        bool, typer.Option(help="Also write the classes in colour on the image.")
    ] = True,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also write the probability of each class, a float16 .npy (K, H, W).",
        ),
    ] = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also write how unsure the model is of each pixel, averaged over mirror images as "
            "with --flips: 0 sure, 255 all classes alike.",
        ),
    ] = False,
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over mirror images: slower, slightly better.")
    ] = False,
    tile: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="PX",
            help="Images with a longer side go through in overlapping tiles of this side.",
        ),
    ] = TILE_PX,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PX",
            help="Overlap of the tiles.",
            show_default=f"{OVERLAP_PX}, or half of a small tile",
        ),
    ] = None,
    flavor: Flavor = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
) -> None:
    """Label every pixel of images with a trained model.

    Writes DIR/NAME.png (the class's index in each pixel) and DIR/NAME_overlay.png for each image,
    or DIR/NAME.nii.gz for each NIfTI volume, where the model was trained on slices of volumes.
    Broken images are reported and left out.
    """
    with exit_codes():
        pick_device(device)
        limit_threads()
        absolute(tracking_uri)
        are_volumes = hold_volumes(inputs)
        for flag, given in {"--probabilities": probabilities, "--uncertainty": uncertainty}.items():
            if are_volumes and given:
                raise ConfigError(f"{flag}: that is written of images, not of volumes.")
        if not are_volumes:
            find_inputs(inputs, out)  # first, because it takes no time
        loaded = load(model, device=device, flavor=flavor, tracking_uri=tracking_uri)
        spec = loaded.spec
        images: Sequence[Input | VolumeInput]
        if are_volumes:
            images = find_volumes(inputs, out, volume_form(spec, _kind_of_data(loaded)))
        else:
            images = find_samples(inputs, out, spec.input or AS_STORED)
        predictor = loaded.predictor_with(
            tile_px=tile,
            overlap_px=overlap,
            flips=trained_flips(loaded.record) if flips or uncertainty else (),
        )
        if probabilities or uncertainty:
            predictor.require_probabilities("--probabilities" if probabilities else "--uncertainty")
        make_folder(out)
        _predict_all(predictor, images, Results(out, overlay, probabilities, uncertainty))


def _kind_of_data(loaded: LoadedModel) -> str | None:
    """The kind of the data that the model was trained on, where that is recorded."""
    kind = ((loaded.record.get("train") or {}).get("data") or {}).get("kind")
    return str(kind) if kind else None


def _predict_one(
    predictor: Predictor,
    image: Input | VolumeInput,
    results: Results,
    on_block: Callable[[int, int], None],
) -> tuple[str, ...]:
    """Write the results of an image or a volume; what to say about it."""
    if isinstance(image, VolumeInput):
        predict_volume(predictor, image, results.folder, on_block)
        return ()
    return predict_file(predictor, image, results, on_block)


def _predict_all(
    predictor: Predictor, images: Sequence[Input | VolumeInput], results: Results
) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    failed = 0
    said: set[str] = set()
    with _progress(console) as progress:
        overall = progress.add_task("images", total=len(images))
        parts = progress.add_task("tiles", visible=False)

        def on_block(done: int, total: int) -> None:
            progress.update(parts, completed=done, total=total, visible=total > 1)

        for image in images:
            try:
                notes = _predict_one(predictor, image, results, on_block)
            except (UserError, MemoryError, torch.OutOfMemoryError) as error:
                failed += 1
                console.print(f"failed: {_reason(image, error)}", style="red", markup=False)
            else:
                for note in [note for note in notes if note not in said]:
                    said.add(note)
                    text = f"note: {_shown(image.path)} {note} (shown once)"
                    console.print(text, style="yellow", markup=False)
            progress.advance(overall)
    _sum_up(predictor.spec.class_names, len(images) - failed, results.folder)
    if failed:
        raise UnetexpError(f"{failed} of {len(images)} images, named above.")


def _progress(console: Console) -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    left = TimeRemainingColumn()
    return Progress(
        *columns, left, console=console, transient=True, disable=not console.is_terminal
    )


def _sum_up(class_names: Sequence[str], predicted: int, folder: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    count = "1 image" if predicted == 1 else f"{predicted} images"
    console.print(f"{count} predicted, results in {folder}", markup=False)
    legend = ", ".join(f"{index} {name}" for index, name in enumerate(class_names))
    console.print(f"labels: {legend}", markup=False)


def _reason(image: Input | VolumeInput, error: BaseException) -> str:
    if isinstance(error, UserError):
        text = _printable(str(error))
        return text if str(image.path) in str(error) else f"{_shown(image.path)}: {text}"
    return f"{_shown(image.path)}: memory is too small. Choose a smaller --tile."


def _shown(path: Path) -> str:
    return _printable(str(path))


def _printable(text: str) -> str:
    """`text` with what is no UTF-8 in a file's name replaced."""
    return text.encode(errors="replace").decode()
