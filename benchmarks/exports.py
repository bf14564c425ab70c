"""Exported files beside PyTorch: mIoU lost, pixels equal, size, and the latency of one image.

    python -m benchmarks.exports MODEL... --to onnx-fp32 openvino-fp32 openvino-int8 --threads 2

Each MODEL, a trained model's folder, is exported to each format and proved on the validation images
of its own training data (`--data`: of others). Then all files of a model and the eager fp32 model
take turns on one random image of `--side` pixels, so that what disturbs one disturbs all; the
median counts. What cannot be run here is marked as not run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from unetexp.compute.serving import laid_out_to_serve, served_logits  # noqa: E402
from unetexp.data import Dataset, open_dataset  # noqa: E402
from unetexp.data.sources.recognised import recognised_tree  # noqa: E402
from unetexp.errors import UserError  # noqa: E402
from unetexp.export.exporting import Exported, Request, export  # noqa: E402
from unetexp.export.formats import WRITERS, writer_of  # noqa: E402
from unetexp.inference.evaluation import train_config  # noqa: E402
from unetexp.models.saved_model import load, read_spec  # noqa: E402
from unetexp.runtimes.runtime import open_runtime  # noqa: E402
from unetexp.training.config import decode_config  # noqa: E402

FORMATS = {f"{target}-{precision}": (target, precision) for target, precision in WRITERS}
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
_ANY_LOSS = 100.0  # points: every file is kept and shown
_WARM_UP = 2


class Row(NamedTuple):
    """A file of a model."""

    model: str
    file: str
    done: Exported | None
    latency_ms: float | None
    eager_ms: float | None
    reason: str = ""  # why it was not run


def rows_of(
    folder: Path,
    formats: Sequence[str],
    data: Dataset,
    side: int,
    threads: int,
    rounds: int,
    clock: Clock = time.perf_counter,
) -> list[Row]:
    """The files of one model."""
    spec = read_spec(folder)
    name = f"{spec.encoder.name}, {spec.decoder.kind}"
    with tempfile.TemporaryDirectory() as scratch:
        done: dict[str, Exported] = {}
        reasons: dict[str, str] = {}
        for each in formats:
            target, precision = FORMATS[each]
            try:
                suffix = writer_of(target, precision).SUFFIX
                out = Path(scratch) / each / f"model{suffix}"
                request = Request(target, out, precision, max_drop=_ANY_LOSS)
                done[each] = export(folder, request, data, "val")
            except UserError as error:
                reasons[each] = str(error).partition("\n")[0]
        image = torch.randn(1, spec.in_channels, side, side)
        model = laid_out_to_serve(load(folder))
        passes: dict[str, Callable[[], object]] = {"eager": partial(served_logits, model, image)}
        for each, file in done.items():
            runtime = open_runtime(file.path, "cpu", threads=threads)
            passes[each] = partial(runtime, np.ascontiguousarray(image.numpy()))
        times = interleaved(passes, rounds, clock)
    return [
        Row(name, each, done.get(each), times.get(each), times["eager"], reasons.get(each, ""))
        for each in formats
    ]


@torch.inference_mode()
def interleaved(
    passes: dict[str, Callable[[], object]], rounds: int, clock: Clock
) -> dict[str, float]:
    """Median milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(_WARM_UP + rounds):
        for name, one_pass in passes.items():
            started = clock()
            one_pass()
            times[name].append(1e3 * (clock() - started))
    return {name: statistics.median(each[_WARM_UP:]) for name, each in times.items()}


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| model | file | mIoU | points lost | pixels equal | MB | latency, ms | times eager |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.done is None or row.latency_ms is None or row.eager_ms is None:
            lines.append(f"| {row.model} | {row.file} | not run: {row.reason} | | | | | |")
            continue
        proof = row.done.proof
        lines.append(
            f"| {row.model} | {row.file} | {proof.exported.miou or float('nan'):.4f} "
            f"| {proof.lost_points:.2f} | {proof.equal_pixels:.3%} | {row.done.size_mb:.1f} "
            f"| {row.latency_ms:.1f} ({row.eager_ms:.1f}) | {row.eager_ms / row.latency_ms:.1f} |"
        )
    return "\n".join(lines)


def data_of(folder: Path, given: str | None) -> Dataset:
    """The model's own data, or what was given, at the model's working size."""
    source = train_config(folder).data
    if given is not None:
        source = decode_config({"data": recognised_tree(given, {})}, {}).data
    return open_dataset(
        source.model_copy(update={"resize": read_spec(folder).resize}), to_train=False
    )


def main() -> None:
    """Export, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--to", nargs="+", default=list(FORMATS), choices=FORMATS, metavar="FORMAT")
    parser.add_argument("--data", metavar="DATA", help="default: the model's own")
    parser.add_argument("--side", type=int, default=256, help="of the timed image, in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: where other work shares the cores"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for folder in options.models:
        data = data_of(folder, options.data)
        rows += rows_of(folder, options.to, data, options.side, options.threads, options.rounds)
    print(table(rows))
    print(
        f"\nOne image of {options.side} px, {options.threads} threads; in brackets: PyTorch eager."
    )


if __name__ == "__main__":
    main()
