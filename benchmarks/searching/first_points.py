"""What a sweep tries first: the quickstart's points, or settings that did well on other sets.

Of the table's sets the replayed one is left out, so a replay shows what the knowledge of other data
is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.curves.curve_table import Curves
from benchmarks.searching.landscape import SCORE, recorded
from sweeps.config.loading import load_recipe
from sweeps.config.recipe import Recipe
from sweeps.config.space import search_order

Points = tuple[dict[str, Any], ...]
COUNT = 3  # as many as `--warm-start auto` takes over


def best_elsewhere(curves: Curves, of_set: str, recipe: Recipe) -> Points:
    """The recorded settings that rank best over all sets but one; none where there is no other.

    Settings are ranked by their best score, mean over their seeds; over several sets by the mean of
    their ranks, among those that were trained on all of them.
    """
    others = [name for name in curves.sets if name != of_set]
    if not others:
        return ()
    ranks = None
    for name in others:
        runs = curves.of_set(name).groupby(["config", "seed"])[SCORE].max()
        own = runs.groupby("config").mean().rank(ascending=False)
        ranks = own if ranks is None else (ranks + own).dropna()
    assert ranks is not None
    best = ranks.nsmallest(COUNT).index
    order = search_order(recipe.space)
    found = []
    for config in best:
        rows = curves.of_set(others[0])
        (values,), *_ = recorded(rows[rows["config"] == config], order, recipe.base.epochs)
        found.append(values)
    return tuple(found)


def of_quickstart(curves: Curves, of_set: str, recipe: Recipe) -> Points:
    """The shipped recipe's own points."""
    return tuple(dict(point) for point in load_recipe("quickstart", {}).points)


FIRST: dict[str, Callable[[Curves, str, Recipe], Points]] = {
    "the quickstart's": of_quickstart,
    "the best elsewhere": best_elsewhere,
}
