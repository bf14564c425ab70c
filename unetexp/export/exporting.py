"""From a trained model to a file that is proved: written aside, judged, and only then in place."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from unetexp.data import Dataset
from unetexp.errors import ConfigError, UnetexpError, UserError
from unetexp.export.calibration import IMAGES, calibration_inputs, graph_inputs
from unetexp.export.card import card
from unetexp.export.formats import Writer, writer_of
from unetexp.export.proof import Proof, Reference
from unetexp.export.subject import Subject
from unetexp.inference.evaluation import train_config
from unetexp.models.receptive_field import receptive_radius_px
from unetexp.models.saved_model import WEIGHTS, ModelSpec, load, read_description, read_spec
from unetexp.models.unet import UNet
from unetexp.runtimes.description import Description, Format, Precision
from unetexp.runtimes.probe import Probe
from unetexp.runtimes.runtime import Runtime, open_runtime

MAX_DROP = 0.5  # points of mIoU
_PROBE_PX = 64


@dataclass(frozen=True)
class Request:
    """Which file is asked for."""

    target: Format
    out: Path
    precision: Precision = "fp32"
    preprocessing: bool = False
    max_drop: float = MAX_DROP
    calibration_images: int = IMAGES  # at most, for int8
    run_id: str | None = None  # that trained the model, where it is known
    commit: str | None = None  # of the code that trained it

    def of(self, run_id: str | None, commit: str | None) -> Request:
        """The same for a model of that run."""
        return dataclasses.replace(self, run_id=run_id, commit=commit)

    def writer(self) -> Writer:
        """The writer of the file. Raises UserError for what cannot be written here."""
        writer = writer_of(self.target, self.precision)
        if self.out.suffix.lower() != writer.SUFFIX:
            raise ConfigError(
                f"--out {self.out}: a file for {self.target} ends in {writer.SUFFIX}, such as "
                f"{self.out.with_suffix(writer.SUFFIX)}."
            )
        if self.out.is_dir():
            raise ConfigError(f"--out {self.out}: this is a folder. Give a file's name.")
        writer.require_installed()
        return writer


@dataclass(frozen=True)
class Exported:
    """A file in its place."""

    path: Path
    card: Path
    description: Description
    proof: Proof
    size_mb: float  # of all its parts


def export(folder: Path, request: Request, data: Dataset, split: str) -> Exported:
    """Write the model in `folder` as `request` says, proved on a split of `data`.

    `data` is at the model's working size. Raises UserError for what cannot be exported, and
    GateError for a file that is worse than allowed: then nothing is written, and what was at
    `request.out` before stays.
    """
    writer = request.writer()
    spec, model = read_spec(folder), load(folder)
    _require_in_the_graph(spec, request)
    quantised = request.precision == "int8"
    subject = Subject(
        model=model,
        spec=spec,
        precision=request.precision,
        preprocessing=request.preprocessing,
        calibration=calibration_inputs(
            data, spec, preprocessing=request.preprocessing, most=request.calibration_images
        )
        if quantised
        else (),
    )
    description = _description(folder, request, spec, model)
    reference = Reference(model, spec, train_config(folder), data, split)
    with _aside(request.out) as scratch:
        path = scratch / request.out.name
        writer.write(subject, path)
        writer.describe(path, description.text())
        runtime = open_runtime(path, threads=torch.get_num_threads())
        proof = reference.compared_with(runtime)
        proof.require(request.max_drop, str(request.out))
        described = description.model_copy(
            update={
                "runtime": runtime.name,
                "probe": _probe(runtime, data, split, spec),
                "proof": proof.tree(),
            }
        )
        writer.describe(path, described.text())
        del runtime  # it may map the file
        open_runtime(path)  # as its users will
        size_mb = sum(part.stat().st_size for part in scratch.iterdir()) / 1e6
        (scratch / f"{path.name}.md").write_text(card(described, proof, size_mb), encoding="utf-8")
        _place(scratch, request.out)
    beside = request.out.with_name(f"{request.out.name}.md")
    return Exported(request.out, beside, described, proof, size_mb)


def _require_in_the_graph(spec: ModelSpec, request: Request) -> None:
    """UserError where the graph would have to do more than the network, to give label maps."""
    tuned = spec.postprocessing
    if request.preprocessing and tuned is not None and tuned.changes_labels:
        raise UserError(
            f"--preprocessing: this model's labels are postprocessed ({tuned.describe()}), which "
            "no graph does. Leave the option out: `unetexp predict`, `unetexp.load` and `unetexp "
            "serve` do it for every file."
        )
    if request.preprocessing and spec.resize is not None:
        raise UserError(
            "--preprocessing: this model works on images that are scaled to another size first, "
            "and back again, which no graph does as in training. Leave the option out: "
            "`unetexp predict` and `unetexp.load` scale for every file."
        )


def _description(folder: Path, request: Request, spec: ModelSpec, model: UNet) -> Description:
    record = read_description(folder)
    return Description(
        format=request.target,
        precision=request.precision,
        preprocessing=request.preprocessing,
        model=spec.of_images(),
        size_multiple=model.encoder.size_multiple,
        receptive_radius_px=receptive_radius_px(model),
        network=f"{spec.encoder.name} encoder, {spec.decoder.kind} decoder",
        train=record.get("train"),
        data_fingerprint=record.get("data_fingerprint"),
        run_id=request.run_id,
        commit=request.commit,
        weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
    )


def _probe(runtime: Runtime, data: Dataset, split: str, spec: ModelSpec) -> Probe:
    """The middle of an image, and what the file says of it."""
    (given,) = graph_inputs(
        data,
        split,
        spec,
        preprocessing=runtime.description.preprocessing,
        most=1,
        side_px=_PROBE_PX,
    )
    return Probe.of(given, np.asarray(runtime(given)), runtime.description.precision)


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder beside `out` that is removed at the end."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unetexp-export-", dir=out.parent))
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written there: {error.strerror}.") from None
    try:
        yield scratch
    except OSError as error:
        raise UnetexpError(f"{out}: cannot be written: {error}.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _place(scratch: Path, out: Path) -> None:
    """Move all parts to their places, that of the given name last."""
    for part in sorted(scratch.iterdir(), key=lambda part: part.name == out.name):
        part.replace(out.with_name(part.name))
