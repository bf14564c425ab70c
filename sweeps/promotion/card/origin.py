"""The sections of a model card that tell where the model came from, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from sweeps.promotion.evaluation import PromotionDecision
from unetexp.models.merging import MERGED
from unetexp.models.weights.provenance import Provenance
from unetexp.version import __version__


def final_section(decision: PromotionDecision) -> Iterator[str]:
    """What was trained to the end, what was tried, and what validation picked."""
    assert decision.final is not None
    final = decision.final
    yield "## Final training"
    yield ""
    yield final.heading()
    yield ""
    yield from (f"- {line}" for line in final.lines())
    yield ""
    yield final.verdict()
    if final.is_new and final.with_val is None:
        yield ""
        yield (
            "Validation picked the best of the models above, so its score there is too optimistic; "
            f"the {decision.split} split was not used to pick."
        )


def training_section(decision: PromotionDecision) -> Iterator[str]:
    """The epoch, the seed and the settings."""
    train = decision.chosen.description["train"]
    confirmed = decision.confirmation.seeds if decision.confirmation else ()
    also = f"; trained again with {', '.join(map(str, confirmed))}" if confirmed else ""
    yield "## Training"
    yield ""
    merged = decision.chosen.description.get(MERGED)
    if merged:
        epochs, seeds = (", ".join(map(str, merged[name])) for name in ("epochs", "seeds"))
        yield (
            f"Averaged {merged['averaged']} of {len(merged['seeds'])} models: seeds {seeds}, "
            f"epochs {epochs} of {train['epochs']}. The settings of the first:"
        )
    else:
        epoch = decision.chosen.description["epoch"]
        yield f"Epoch {epoch} of {train['epochs']}. Seed {train['seed']}{also}."
    yield ""
    yield "```yaml"
    yield yaml.safe_dump(train, sort_keys=False).rstrip()
    yield "```"


def origin_section(decision: PromotionDecision) -> Iterator[str]:
    """The runs, the code and the machine."""
    tags = decision.source.run.data.tags
    commit = tags.get("git.commit", "unknown")
    dirty = " with uncommitted changes" if tags.get("git.dirty") == "True" else ""
    versions = {k.removeprefix("version."): v for k, v in tags.items() if k.startswith("version.")}
    rows = [
        ("sweep", f"{decision.source.name}, run `{decision.source.run.info.run_id}`"),
        ("trial", f"{decision.trial.trial}, run `{decision.trial.run_id}`"),
        ("initial weights", _initial_weights(decision.chosen.description)),
        ("commit", f"{commit}{dirty}"),
        ("trained with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("trained on", _hardware(tags)),
        ("promoted", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, unetexp {__version__}"),
    ]
    if decision.is_final:
        rows.insert(2, ("final training", f"run `{decision.chosen.run_id}`"))
    if decision.confirmation:
        rows.insert(2, ("confirmed by", f"sweep {decision.confirmation.sweep}"))
    yield "## Origin"
    yield ""
    yield from table(("", ""), rows)


def _initial_weights(description: dict[str, Any]) -> str:
    """Where the encoder started from; an earlier version recorded no more than the setting."""
    record = description.get("initial_weights")
    if record is None:
        return f"{description['train']['encoder']['weights']} (no hash was recorded)"
    return Provenance(**record).describe()


def _hardware(tags: dict[str, str]) -> str:
    parts = [tags.get("hardware.gpus", "none"), tags.get("hardware.cpu", "unknown CPU")]
    return ", ".join(part for part in parts if part != "none")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown, line by line."""
    for cells in (heads, ["---"] * len(heads), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
