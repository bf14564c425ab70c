"""Ensembles and soups of the final trainings: built, tried on validation, kept where they pay."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sweeps.config.gates import Gates
from sweeps.promotion.exports.judged import served_ms
from sweeps.promotion.final_training.outcome import ENSEMBLE, SOUP, Attempt, Contender
from sweeps.promotion.final_training.validation import Validation
from sweeps.promotion.latency_limit import weights_ms
from unetexp.atomic_folder import replacing
from unetexp.data import Dataset
from unetexp.inference.evaluation import train_config
from unetexp.models.merging import write_ensemble, write_soup
from unetexp.models.saved_model import WEIGHTS, read_description
from unetexp.runtimes.flavors import PYTORCH
from unetexp.training.soup import soup


@dataclass(frozen=True)
class Mixer:
    """Makes one model of several in the folder `place`, on the data that they were trained on."""

    place: Path
    data: Dataset
    device: torch.device

    def merged(self, kind: str, folders: Sequence[Path]) -> Path:
        """The folder of the new model, an ensemble or a soup."""
        self.place.mkdir(parents=True, exist_ok=True)
        target = self.place / kind
        with replacing(target) as scratch:
            if kind == ENSEMBLE:
                write_ensemble(folders, scratch)
            else:
                average = soup(folders, train_config(folders[0]), self.data, self.device)
                write_soup(average.cpu(), folders, scratch)
        return target


def try_merging(
    kinds: Sequence[str],
    members: Sequence[Contender],
    best: Contender,
    *,
    title: Callable[[str], str],
    run_id: str,
    mixer: Mixer,
    validation: Validation,
    gates: Gates,
    flavor: str = PYTORCH,
) -> tuple[Contender, list[Attempt]]:
    """The best model after each kind was tried against the best until then, and the attempts.

    `title` names the model of a kind, `run_id` is where it would be registered from, `flavor` is
    what would be served. What is not kept is removed.
    """
    attempts: list[Attempt] = []
    if len(members) < 2:
        why = "only one training was completed"
        return best, [Attempt(kind, len(members), best.title, refused=why) for kind in kinds]
    against = validation(best.folder)
    for kind in kinds:
        folder = mixer.merged(kind, [member.folder for member in members])
        found = validation(folder)
        attempt = Attempt(
            kind,
            len(members),
            best.title,
            found.score,
            validation.compare(found, against),
            too_heavy(folder, gates, mixer.data, mixer.device, flavor),
        )
        attempts.append(attempt)
        if attempt.kept:
            epoch = int(read_description(folder)["epoch"])
            best = Contender(kind, title(kind), run_id, folder, found.score, epoch)
            against = found
        else:
            shutil.rmtree(folder)
    return best, attempts


def kinds_asked(*, ensemble: bool, soup: bool) -> list[str]:
    """What is tried, the one that is as fast as a single model first."""
    return [SOUP] * soup + [ENSEMBLE] * ensemble


def too_heavy(
    folder: Path, gates: Gates, data: Dataset, device: torch.device, flavor: str = PYTORCH
) -> str:
    """Which limit of the gates the model in `folder` breaks as it would be served; empty: none."""
    size_mb = (folder / WEIGHTS).stat().st_size / 1e6
    if gates.max_size_mb is not None and size_mb > gates.max_size_mb:
        return f"it takes {size_mb:.1f} MB, where {gates.max_size_mb:g} MB are allowed"
    if gates.max_latency_ms is None:
        return ""
    served = flavor != PYTORCH
    found_ms = served_ms(flavor, folder, data) if served else weights_ms(folder, data, device)
    if found_ms <= gates.max_latency_ms:
        return ""
    return f"it takes {found_ms:.1f} ms, where {gates.max_latency_ms:g} ms are allowed"
