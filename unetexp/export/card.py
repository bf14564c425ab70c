"""The table of a proof, and the card that lies beside an exported file, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from unetexp.export.proof import Figures, Proof
from unetexp.runtimes.description import Description

HEADS = ("", "mIoU", "points lost", "pixels equal", "latency, ms", "faster")


def rows(proof: Proof) -> Iterator[tuple[str, ...]]:
    """The cells below `HEADS`: of the PyTorch model, and of the file."""
    eager, exported = proof.pytorch, proof.exported
    yield (eager.name, _miou(eager), "-", "-", f"{eager.latency_ms:.1f}", "1.0x")
    yield (
        exported.name,
        _miou(exported),
        f"{proof.lost_points:.2f}",
        f"{proof.equal_pixels:.3%}",
        f"{exported.latency_ms:.1f}",
        f"{eager.latency_ms / exported.latency_ms:.1f}x",
    )


def measured_on(proof: Proof) -> str:
    """What the figures are of."""
    height, width = proof.latency_size
    images = "1 image" if proof.images == 1 else f"{proof.images} images"
    return (
        f"{proof.split}, {images}; latency: median of one image of {height}x{width} pixels, on "
        f"{proof.threads} thread{'' if proof.threads == 1 else 's'}"
    )


def card(description: Description, proof: Proof, size_mb: float) -> str:
    """The card of an exported file."""
    return "\n".join(_lines(description, proof, size_mb)) + "\n"


def _lines(description: Description, proof: Proof, size_mb: float) -> Iterator[str]:
    spec = description.model
    yield f"# {description.title}"
    yield ""
    yield f"{description.network}; {size_mb:.1f} MB; proved with {description.runtime}."
    yield ""
    yield from _table(HEADS, rows(proof))
    yield ""
    yield f"Measured on {measured_on(proof)}."
    yield ""
    by_class = [
        (name, _shown(proof.pytorch.iou[name]), _shown(proof.exported.iou[name]))
        for name in spec.class_names
    ]
    yield from _table(("class", "IoU PyTorch", f"IoU {description.title}"), by_class)
    yield ""
    yield f"Input: {_input(description)}"
    yield ""
    yield from _table(
        ("", ""),
        [
            ("classes", ", ".join(spec.class_names)),
            ("run", description.run_id or "-"),
            ("commit", description.commit or "-"),
            ("weights, SHA-256", description.weights_sha256),
            ("written by", f"unetexp {description.unetexp}"),
        ],
    )


def _input(description: Description) -> str:
    spec = description.model
    if description.preprocessing:
        depth = "uint8" if spec.image_max <= 255 else f"uint16, 0 to {spec.image_max}"
        return (
            f"raw images (N, H, W, {spec.in_channels}) {depth}, any size; output: label maps "
            "(N, H, W) uint8."
        )
    mean, std = (", ".join(f"{value:g}" for value in part) for part in spec.normalization)
    return (
        f"float32 images (N, {spec.in_channels}, H, W), any size: pixel / {spec.image_max}, minus "
        f"the mean ({mean}), divided by ({std}); output: logits (N, {len(spec.class_names)}, H, W)."
    )


def _table(heads: tuple[str, ...], cells: object) -> Iterator[str]:
    for row in (heads, ("---",) * len(heads), *cells):  # type: ignore[misc]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _miou(figures: Figures) -> str:
    return _shown(figures.miou)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
