"""The initial weights of every encoder that a sweep's trials may have, resolved once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.config.recipe import Recipe
from sweeps.config.space import Choice, Dimension, holds
from unetexp.models.encoders import Encoder
from unetexp.models.weights.resolution import ResolvedWeights, resolve_weights

_KIND, _FREEZE = "encoder.kind", "encoder.freeze"


@dataclass(frozen=True)
class SettledWeights:
    """What the weights became, and what that added to the search."""

    weights: Mapping[str, str]  # by the encoder's full name
    added: Mapping[str, Dimension]  # dimensions, by path
    warnings: tuple[str, ...] = ()

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe with weights that are resolved."""
        encoder = recipe.base.encoder
        own = self.weights.get(encoder.full_name, encoder.weights)
        base = recipe.base.model_copy(
            update={"encoder": encoder.model_copy(update={"weights": own})}
        )
        weights = {**recipe.weights, **self.weights} if len(self.weights) > 1 else recipe.weights
        space = {**recipe.space, **self.added}
        return recipe.model_copy(update={"base": base, "space": space, "weights": weights})


def settle_weights(recipe: Recipe, fixed: Mapping[str, object], channels: int) -> SettledWeights:
    """Resolve the weights of all encoders, for images of so many channels.

    `fixed` are the user's own changes, by dotted path. Where `encoder.weights` is auto and the
    recipe's one ResNet has no pretrained weights here, the packaged encoder becomes part of the
    search. Raises WeightsUnavailableError.
    """
    own = recipe.config({}).encoder
    resolved = {own.full_name: resolve_weights(own, in_channels=channels)}
    added = _packaged(recipe, fixed, resolved[own.full_name])
    searched = recipe.model_copy(update={"space": {**recipe.space, **added}})
    encoders = searched.encoders()
    for encoder in encoders:
        if encoder.full_name not in resolved:
            resolved[encoder.full_name] = resolve_weights(encoder, in_channels=channels)
    warnings = [
        f"{found.encoder.name}: {found.warning}" if len(resolved) > 1 else found.warning
        for found in resolved.values()
        if found.warning
    ]
    if added:
        warnings.append(
            f"The search includes {_KIND}: {added[_KIND].describe()}, because the pretrained "
            f"weights of {recipe.base.encoder.name} are not available here, and those of "
            f"{encoders[-1].name} come with the installation. "
            f"--set {_KIND}={recipe.base.encoder.kind} searches without it."
        )
    random = [one for one in encoders if resolved[one.full_name].encoder.weights == "none"]
    random = [one for one in random if _may_be_frozen(searched, one)]
    kinds = {one.kind for one in encoders} - {one.kind for one in random}
    if random and kinds and _KIND in searched.space:
        freeze = searched.space[_FREEZE]
        added[_FREEZE] = freeze.model_copy(update={"when": {**freeze.when, _KIND: sorted(kinds)}})
        warnings.append(
            f"{_FREEZE} is searched for {_KIND}={' and '.join(sorted(kinds))} alone: what starts "
            "from random weights is not worth freezing."
        )
    elif random:
        names = " and ".join(one.name for one in random)
        warnings.append(
            f"{_FREEZE} is searched while {names} start{'s' if len(random) == 1 else ''} from "
            "random weights: a frozen part then learns nothing. Give pretrained weights, or "
            f"--set {_FREEZE}=none."
        )
    weights = {name: found.encoder.weights for name, found in resolved.items()}
    return SettledWeights(weights, added, tuple(warnings))


def _may_be_frozen(recipe: Recipe, encoder: Encoder) -> bool:
    """Whether levels of freezing are searched for this encoder."""
    dimension = recipe.space.get(_FREEZE)
    own = {_KIND: encoder.kind, "encoder.name": encoder.name}
    return dimension is not None and holds(dimension.when, {**recipe.fixed_values(), **own})


def _packaged(
    recipe: Recipe, fixed: Mapping[str, object], found: ResolvedWeights
) -> dict[str, Dimension]:
    """The packaged encoder as another kind to search, where the recipe's own starts random.

    `found` are the weights of the recipe's own encoder.
    """
    asked: Encoder = recipe.config({}).encoder
    if {_KIND, "encoder.name"} & {*recipe.space, *fixed} or not recipe.space:
        return {}
    if (asked.kind, asked.weights, found.encoder.weights) != ("resnet", "auto", "none"):
        return {}
    return {_KIND: Choice(values=("resnet", "timm"))}
