"""What of the encoder learned in the epoch, read back from its tensors and from the optimiser."""

from __future__ import annotations

from collections.abc import Iterator

from unetexp.models.encoders import FeatureEncoder
from unetexp.training.proof.reading import LiveRun, Reading


def frozen_readings(run: LiveRun) -> Iterator[Reading]:
    """The level of freezing by `requires_grad`, by the modules at rest, and by what was updated."""
    asked, encoder = run.config.encoder, run.state.model.encoder
    level = asked.frozen_in(run.epoch)
    thawed = level != asked.freeze
    setting = "encoder.thaw_epoch" if thawed else "encoder.freeze"
    yield Reading(setting, level, _level_of_tensors(encoder, level))
    yield Reading(
        setting,
        f"{level} with batch norm and dropout at rest",
        f"{_level_at_rest(encoder, level)} with batch norm and dropout at rest",
    )
    yield Reading(
        setting, f"{level} without updates", f"{_not_updated(run, level)} without updates"
    )


def _level_of_tensors(encoder: FeatureEncoder, asked: str) -> str:
    names = [name for name, _ in encoder.named_parameters()]
    live = {name for name, each in encoder.named_parameters() if not each.requires_grad}
    return _level(encoder, names, live, asked)


def _level_at_rest(encoder: FeatureEncoder, asked: str) -> str:
    names = [name for name, _ in encoder.named_modules() if name]
    live = {name for name, part in encoder.named_modules() if name and not part.training}
    return _level(encoder, names, live, asked)


def _not_updated(run: LiveRun, asked: str) -> str:
    """The level whose tensors the optimiser has no state of; `asked` where it keeps none at all.

    A level counts as updated once one of its tensors is: a network need not use all.
    """
    encoder = run.state.model.encoder
    updated = {id(each) for each, kept in run.state.optimizer.state.items() if kept}
    names = {name for name, each in encoder.named_parameters() if id(each) in updated}
    if not updated:
        return asked
    levels = list(encoder.parts)
    frozen, rest = levels[: levels.index(asked) + 1], levels[levels.index(asked) + 1 :]
    wrong = names & _tensors(encoder, asked)
    if wrong and frozen:
        return f"all but {len(wrong)} tensors of {asked}"
    own = {
        level: _tensors(encoder, level) - _tensors(encoder, before)
        for level, before in zip(levels[1:], levels, strict=False)
    }
    idle = [level for level in rest if own.get(level) and not own[level] & names]
    return idle[-1] if idle else asked


def _level(encoder: FeatureEncoder, names: list[str], live: set[str], asked: str) -> str:
    """The level that means the `live` ones of the encoder's tensors or modules."""
    for level in (asked, *encoder.parts):
        if live == _within(encoder, names, level):
            return level
    return f"no level ({len(live)} of {len(names)} in the encoder)"


def _tensors(encoder: FeatureEncoder, level: str) -> set[str]:
    return _within(encoder, [name for name, _ in encoder.named_parameters()], level)


def _within(encoder: FeatureEncoder, names: list[str], level: str) -> set[str]:
    """Those of the `names` that belong to `level` or one before it."""
    levels = list(encoder.parts)
    parts = [part for each in levels[: levels.index(level) + 1] for part in encoder.parts[each]]
    inside = tuple(f"{part}." for part in parts)
    return {name for name in names if name.startswith(inside) or name in parts}
