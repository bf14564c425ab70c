"""The model card of a promoted model, in Markdown.

After Mitchell et al., Model Cards for Model Reporting (arXiv:1810.03993): the model, its training
data, its metrics with their uncertainty, and its limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from sweeps.promotion.card.exports import exports_section
from sweeps.promotion.card.figures import figures_section, with_interval
from sweeps.promotion.card.origin import (
    final_section,
    origin_section,
    table,
    training_section,
)
from sweeps.promotion.card.postprocessing import postprocessing_section
from sweeps.promotion.evaluation import TEST, PairedResult, PromotionDecision
from unetexp.models.saved_model import CONFIG, WEIGHTS

_WORST = 3
_RARE = 0.01  # share of the training pixels


def card(decision: PromotionDecision) -> str:
    """The card of the chosen model."""
    sections = [
        _head,
        _use,
        _metrics,
        figures_section,
        _comparison,
        postprocessing_section,
        _gates,
        _data,
        training_section,
        origin_section,
        _limits,
    ]
    if decision.exports:
        sections.insert(sections.index(_gates), exports_section)
    if decision.final is not None:
        sections.insert(sections.index(_gates), final_section)
    return "\n\n".join("\n".join(section(decision)) for section in sections) + "\n"


def _head(decision: PromotionDecision) -> Iterator[str]:
    spec = decision.chosen.spec
    yield f"# unetexp: {decision.chosen.title} of sweep {decision.source.name}"
    yield ""
    several = f"{spec.members} models that predict together, each a" if spec.members else "A"
    in_all = " in all" if spec.members else ""
    yield (
        f"{several} U-Net over a {spec.encoder.name} encoder with a {spec.decoder.kind} decoder "
        f"({spec.decoder.upsampling} upsampling, {decision.chosen.parameters / 1e6:.1f} million "
        f"parameters{in_all}) that assigns each pixel of an image one of "
        f"{len(spec.class_names)} classes: {', '.join(spec.class_names)}."
    )
    yield ""
    miou = with_interval(decision.chosen.intervals["miou"])
    yield (
        f"Mean IoU {miou} on the {decision.split} split, {_images(decision.images)}. "
        f"{decision.describe_uses()}"
    )
    if decision.forced:
        yield ""
        yield f"> **Promoted with `--force`.** {_what_was_forced(decision)}"
    for warning in decision.warnings:
        yield ""
        yield f"> {warning}"


def _what_was_forced(decision: PromotionDecision) -> str:
    reasons = [f"Red gate: {verdict.describe()}." for verdict in decision.red]
    if decision.split != TEST:
        reasons.append("It was not evaluated on a test split.")
    skipped = [verdict for verdict in decision.verdicts[:1] if verdict.green is None]
    reasons += [f"It was not compared with the champion: {v.limit}." for v in skipped]
    return " ".join(reasons) or "All gates were green anyway."


def _use(decision: PromotionDecision) -> Iterator[str]:
    spec = decision.chosen.spec
    kind = {1: "grey images (one channel)", 3: "RGB images"}
    images = kind.get(spec.in_channels, f"images of {spec.in_channels} channels")
    yield "## Use"
    yield ""
    yield f"Takes {images} of any size, with pixel values 0 to {spec.image_max} (full brightness)."
    if spec.input is not None:
        read = ", ".join(f"{name} {value}" for name, value in spec.input.changes().items())
        yield f"Files are read as in training: {read} (`docs/your-data.md`)."
    yield ""
    yield "```python"
    yield "import mlflow"
    yield ""
    yield 'model = mlflow.pyfunc.load_model("models:/unetexp@champion")'
    yield "labels = model.predict(image)  # uint8 (H, W, C) in, label map (H, W) out"
    yield "```"
    yield ""
    yield "```sh"
    yield "unetexp predict models:/unetexp@champion IMAGES --out predictions"
    yield "```"
    yield ""
    yield f"Or from its files, `{WEIGHTS}` and `{CONFIG}`: `unetexp.load(FOLDER)`."


def _metrics(decision: PromotionDecision) -> Iterator[str]:
    intervals, metrics = decision.chosen.intervals, decision.chosen.assessment.metrics
    yield f"## Metrics on the {decision.split} split"
    yield ""
    yield (
        f"{_images(decision.images).capitalize()}, at their original size. Intervals are 95 %, by "
        "a bootstrap over images."
    )
    yield ""
    rows = [("mean IoU", "miou"), ("mean Dice", "dice"), ("pixel accuracy", "pixel_accuracy")]
    cells = [(title, with_interval(intervals[name])) for title, name in rows]
    yield from table(("metric", "value (95 % interval)"), cells)
    yield ""
    ranked = sorted(
        decision.chosen.spec.class_names, key=lambda name: _last_nan(metrics[f"iou/{name}"])
    )
    by_class = [
        (name, with_interval(intervals[f"iou/{name}"]), _number(metrics[f"dice/{name}"]))
        for name in ranked
    ]
    yield from table(("class, worst first", "IoU (95 % interval)", "Dice"), by_class)
    yield ""
    scored = [name for name in ranked if not math.isnan(metrics[f"iou/{name}"])]
    worst = ", ".join(f"{name} ({metrics[f'iou/{name}']:.4f})" for name in scored[:_WORST])
    yield f"Worst classes: {worst}. Worst images: {_worst_images(decision)}."


def _worst_images(decision: PromotionDecision) -> str:
    assessed = decision.chosen.assessment
    scores = zip(map(float, assessed.image_miou), assessed.image_names, strict=True)
    ranked = sorted((score, name) for score, name in scores if not math.isnan(score))
    return ", ".join(f"{name} ({score:.4f})" for score, name in ranked[:_WORST])


def _comparison(decision: PromotionDecision) -> Iterator[str]:
    trial = decision.trial
    yield "## Choice and comparison"
    yield ""
    what = "Its settings are those of a trial that" if decision.is_final else "It"
    how = (
        f"{what} was selected by its run's id"
        if decision.asked_for
        else f"{what} was chosen by the sweep's objective, its best {trial.goals.score}"
    )
    if decision.max_latency_ms is not None:
        how += f" among the trials that take at most {decision.max_latency_ms:g} ms"
    yield (
        f"{how} ({trial.score:.4f}, in epoch {trial.epoch}), not by the metrics above: a "
        "split that is used to choose is part of the search, and its metrics are too optimistic."
    )
    for paired in (decision.runner_up, decision.champion):
        if paired is not None:
            yield ""
            yield f"{_sentence(decision, paired)}"
    if decision.runner_up is None:
        yield ""
        yield "It was not compared with another trial of its sweep."
    if decision.confirmation:
        yield ""
        head, *lines, verdict = decision.confirmation.describe()
        yield head
        yield ""
        yield from (f"- {line}" for line in lines)
        yield ""
        yield verdict


def _sentence(decision: PromotionDecision, paired: PairedResult) -> str:
    role = "Champion before it" if paired is decision.champion else "Runner-up"
    return f"{role}: {paired.describe(decision.chosen.title)}."


def _gates(decision: PromotionDecision) -> Iterator[str]:
    yield "## Gates"
    yield ""
    rows = [(v.gate, v.limit, v.found or "-", v.light) for v in decision.verdicts]
    yield from table(("gate", "allowed", "found", "verdict"), rows)
    yield ""
    measures = decision.chosen.measures
    yield (
        f"One image takes {measures.latency_ms:.1f} ms on the machine that promoted it; the "
        f"weights take {measures.size_mb:.1f} MB."
    )


def _data(decision: PromotionDecision) -> Iterator[str]:
    summary = decision.data.summary()
    config = decision.chosen.description["train"]["data"]
    yield "## Data"
    yield ""
    settings = ", ".join(f"{key} {value}" for key, value in config.items() if key != "kind")
    yield f"Source `{config['kind']}`: {settings}."
    yield f"Fingerprint `{decision.data.fingerprint}` (contents, splits and settings)."
    yield ""
    rows = [
        (name, str(some["images"]), _range(some["width_px"]), _range(some["height_px"]))
        for name, some in summary["splits"].items()
    ]
    yield from table(("split", "images", "width, px", "height, px"), rows)
    yield ""
    shares = summary["splits"]["train"]["class_fractions"]
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    yield f"Share of the training pixels: {listed}."
    for note in summary["notes"]:
        yield ""
        yield f"{note}"


def _limits(decision: PromotionDecision) -> Iterator[str]:
    spec = decision.chosen.spec
    shares = decision.data.summary()["splits"]["train"]["class_fractions"]
    rare = [name for name, share in shares.items() if share < _RARE]
    metrics = decision.chosen.assessment.metrics
    unseen = [name for name in spec.class_names if math.isnan(metrics[f"iou/{name}"])]
    yield "## Limits"
    yield ""
    yield (
        "- Evaluated only on images like those of its data set: other cameras, scanners, places, "
        "stains or object sizes need an evaluation of their own."
    )
    yield (
        "- Every pixel gets one of its classes, whatever it shows; objects of other classes are "
        "not detected as such."
    )
    yield (
        "- The intervals assume independent images. Images of one patient, video or volume are not "
        "independent, and the true intervals are then wider."
    )
    yield "- The intervals describe this one training; another seed gives another model."
    if decision.split != TEST:
        yield "- Its metrics come from the split that it was chosen by: expect less on new images."
    elif decision.uses > 1:
        yield (
            f"- The test split has been used {decision.uses} times. Each use that leads to a "
            "decision makes its metrics slightly too optimistic."
        )
    if rare:
        yield f"- Less than {_RARE:.0%} of the training pixels each: {', '.join(rare)}."
    if unseen:
        yield f"- Not in the {decision.split} split, so not evaluated: {', '.join(unseen)}."
    yield "- It has not been evaluated for fairness, nor for medical or other regulated use."


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _last_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _range(bounds: Any) -> str:
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"
