"""A tuned model on disk: its settings in config.json, and the record of how they were chosen."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unetexp.models.saved_model import CONFIG, WEIGHTS, read_description
from unetexp.postprocessing.settings import NAME, Postprocessing
from unetexp.tuning.reliability import draw, reliability
from unetexp.tuning.tune import Step, Tuned

RECORD = f"{NAME}.json"
DIAGRAM = "reliability.png"


def store(folder: Path, out: Path, tuned: Tuned, split: str, fingerprint: str) -> None:
    """Write the model in `folder` into `out`, which may be the same, as it was tuned."""
    description = read_description(folder)
    model = {name: value for name, value in description["model"].items() if name != NAME}
    if tuned.settings != Postprocessing():
        model[NAME] = tuned.settings.tree()
    if out.resolve() != folder.resolve():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / WEIGHTS, out / WEIGHTS)
    record = record_of(tuned, split, fingerprint)
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if tuned.pixels:
        temperature = tuned.settings.temperature
        before, after = (reliability(tuned.pixels, each) for each in (1.0, temperature))
        draw(before, after, temperature, out / DIAGRAM)
    scratch = out / f".{CONFIG}"
    scratch.write_text(json.dumps({**description, "model": model}, indent=2) + "\n", "utf-8")
    scratch.replace(out / CONFIG)


def read_record(folder: Path) -> dict[str, Any] | None:
    """How the model's postprocessing was chosen; None where it was not measured."""
    path = folder / RECORD
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record


def record_of(tuned: Tuned, split: str, fingerprint: str) -> dict[str, Any]:
    """JSON-safe."""
    temperature = tuned.settings.temperature
    return {
        "settings": tuned.settings.tree(),
        "verdict": tuned.verdict,
        "split": split,
        "data_fingerprint": fingerprint,
        "images": tuned.images,
        "folds": tuned.folds,
        "steps": [_step(step) for step in tuned.steps],
        "calibration_error": tuned.calibration and list(tuned.calibration),
        "reliability": {
            name: [bin_._asdict() for bin_ in reliability(tuned.pixels, at)]
            for name, at in (("before", 1.0), ("after", temperature))
            if tuned.pixels
        },
    }


def _step(step: Step) -> dict[str, Any]:
    tree = asdict(step)
    gain = {name: None if math.isnan(value) else value for name, value in tree["gain"].items()}
    return {**tree, "gain": gain}
