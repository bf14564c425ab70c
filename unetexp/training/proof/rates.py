"""The optimiser read back from its groups: its kind, each part's rate and decay, and the schedule.

A group's `base_lr` is its rate at the schedule's factor 1, its `lr` that of the last step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from unetexp.training.proof.reading import LiveRun, Reading, common

_KINDS = {torch.optim.AdamW: "adamw", torch.optim.SGD: "sgd"}
_KEPT = {"adamw": {"beta1", "beta2"}, "sgd": {"momentum", "nesterov"}}


@dataclass(frozen=True)
class _Held:
    """A parameter in its group."""

    part: str  # encoder, decoder or head
    factor: float  # on its part's rate, by layers
    decays: bool
    group: dict[str, Any]


def optimizer_readings(run: LiveRun) -> Iterator[Reading]:
    """The kind, and the rate and decay of the decoder, the encoder and the head."""
    asked, held = run.config.optimizer, _held(run)
    wanted = sum(1 for _ in run.state.network.parameters())
    yield Reading("optimizer", f"{wanted} tensors", f"{len(held)} tensors")
    kind = _KINDS.get(type(run.state.optimizer), type(run.state.optimizer).__name__)
    yield Reading("optimizer.kind", asked.kind, kind)
    if kind != asked.kind:
        return
    for name in sorted(_KEPT[asked.kind]):
        found = common({_option(group, name) for group in run.state.optimizer.param_groups})
        yield Reading(f"optimizer.{name}", getattr(asked, name), found)
    base = {part: _bases(held, part) for part in ("decoder", "encoder", "head")}
    yield Reading("optimizer.lr", asked.lr, common({*base["decoder"]}))
    decoder = next(iter(base["decoder"]))
    shares = {part: common({rate / decoder for rate in rates}) for part, rates in base.items()}
    yield Reading("encoder.lr_scale", run.config.encoder.lr_scale, shares["encoder"])
    yield Reading("optimizer.head_lr_scale", asked.head_lr_scale, shares["head"])
    yield from _decay_readings(run, held)


def rate_readings(run: LiveRun) -> Iterator[Reading]:
    """The rate of the epoch's last step, as the schedule says for the decoder."""
    config = run.config
    progress = run.state.epoch + (run.batches.steps - 1) / run.batches.steps
    expected = config.schedule.lr(config.optimizer.lr, progress, config.epochs)
    found = {each.group["lr"] for each in _held(run) if each.part == "decoder"}
    yield Reading("schedule", _rate(expected), _rate(common(found)))


def _decay_readings(run: LiveRun, held: list[_Held]) -> Iterator[Reading]:
    asked = run.config.optimizer.weight_decay
    body = {each.group["weight_decay"] for each in held if each.decays and each.part != "head"}
    yield Reading("optimizer.weight_decay", asked, common(body))
    bare = {each.group["weight_decay"] for each in held if not each.decays}
    yield Reading(
        "optimizer.weight_decay",
        "0 on norms and biases",
        f"{common(bare):g} on norms and biases" if len(bare) == 1 else f"{common(bare)} on them",
    )


def _rate(value: object) -> str:
    """Rounded, so that the order of a formula's factors does not matter."""
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"a rate of {shown} in the epoch's last step"


def _bases(held: list[_Held], part: str) -> set[float]:
    """The full rates of a part, its layers' factors taken out, up to rounding."""
    return {float(f"{e.group['base_lr'] / e.factor:.9g}") for e in held if e.part == part}


def _option(group: dict[str, Any], name: str) -> object:
    if name in ("beta1", "beta2"):
        return group["betas"][int(name[-1]) - 1]
    return group[name]


def _held(run: LiveRun) -> list[_Held]:
    """Every parameter that is in exactly one group of the optimiser."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for group in run.state.optimizer.param_groups:
        for parameter in group["params"]:
            groups.setdefault(id(parameter), []).append(group)
    encoder, found = run.state.model.encoder, []
    for name, parameter in _named(run):
        part, _, inner = name.partition(".")
        mine = groups.get(id(parameter), [])
        if len(mine) != 1:
            continue
        factor, decays = 1.0, parameter.ndim > 1
        if part == "encoder":
            factor = encoder.lr_factor(inner)
            decays = decays and inner not in encoder.undecayed
        part = part if part in ("encoder", "head") else "decoder"
        found.append(_Held(part, factor, decays, mine[0]))
    return found


def _named(run: LiveRun) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters by their names in the model, auxiliary heads as parts of the head."""
    yield from run.state.model.named_parameters()
    if run.state.supervised:
        for name, parameter in run.state.supervised.heads.named_parameters():
            yield f"head.{name}", parameter
