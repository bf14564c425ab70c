"""Plan to resume a sweep: find it, and refuse changes that would make its trials incomparable."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from sweeps.config.loading import find_recipe, lasting_name, load_recipe
from sweeps.config.recipe import Recipe, differences
from sweeps.config.space import Space
from sweeps.driver.encoder_weights import SettledWeights
from sweeps.driver.growth import growth_of
from sweeps.driver.plan import SweepOptions, SweepPlan, control_folder, placement_at
from sweeps.state.ledger import FILE, Ledger, read_ledger
from sweeps.state.manifest import SweepManifest, read_manifest
from sweeps.state.stop_reason import StopReason
from sweeps.state.storage import Storage
from sweeps.tracking.own_files import require_own_files
from sweeps.tracking.store import check_tracking, open_existing
from unetexp.component import Tree, decode, override
from unetexp.data import Dataset
from unetexp.errors import CheckpointError, ConfigError, DataError, UserError
from unetexp.tracking.uri import tracking_option
from unetexp.training.config import decode_recorded, settings_before


def plan_resume(name: str, options: SweepOptions) -> tuple[SweepPlan, SweepManifest]:
    """The plan of the sweep `name` as it was started, with the allowed changes in `options`.

    Its budget may grow and its placement may differ; with a recipe that is named, its space may
    change too. Raises UserError for a sweep that does not exist and ConfigError, with the
    differences, for a recipe that has changed in another way.
    """
    control = find_control(name, options, write=True)
    require_sound_ledger(control, options)
    manifest = read_manifest(control)
    recipe = _recipe(manifest, options)
    _refuse_changes(manifest, recipe, may_grow=options.recipe is not None)
    ledger = Ledger(control / FILE, write=False)
    _refuse_fewer_trials(recipe, ledger)
    gpus = manifest.gpus if options.gpus is None else options.gpus
    simulated = manifest.simulate_gpus if options.simulate_gpus is None else options.simulate_gpus
    if options.changes or (gpus, simulated) != (manifest.gpus, manifest.simulate_gpus):
        manifest.estimated_s = None  # it was that of another sweep
    manifest.changes |= dict(options.changes)
    manifest.gpus, manifest.simulate_gpus = gpus, simulated
    before: Recipe = decode(Recipe, _whole(manifest))
    growth = None
    if (recipe.space, recipe.points) != (before.space, before.points):
        settled = _settled(manifest, before)
        growth = growth_of(
            settled.apply(before),
            _settled(manifest, recipe).apply(recipe),
            ledger.events,
            recipe.points,
        )
        assert options.recipe is not None  # or the change was refused
        manifest.recipe, manifest.recipe_asked = recipe.tree(), lasting_name(options.recipe)
        manifest.estimated_s = None
        manifest.growths.append(growth.record())
    recipe = _settled(manifest, recipe).apply(recipe)
    plan = SweepPlan(
        name=name,
        recipe=recipe,
        placement=placement_at(options.address, recipe.budget, gpus, simulated),
        tracking_uri=check_tracking(options.tracking_uri),
        storage=Storage(manifest.storage),
        options=options,
        measured=manifest.measured,
        growth=growth,
    )
    return plan, manifest


def find_control(name: str, options: SweepOptions, *, write: bool = False) -> Path:
    """The folder with the manifest and the ledger of the sweep `name`.

    To `write` there, it must not belong to another project; UserError names that project.
    """
    store = open_existing(options.tracking_uri)
    if store is None:
        raise UserError(f"there is no sweep named {name!r}: no sweep has been started yet.")
    sweep = store.sweep_run(name)
    if write:
        require_own_files(store.uri, sweep)
    return control_folder(Storage(sweep.data.tags["sweep.storage"]), name)


def require_sound_ledger(control: Path, options: SweepOptions) -> None:
    """Raise CheckpointError, with the command that repairs it, where the ledger is damaged."""
    content = read_ledger(control / FILE)
    if content.damage is not None:
        raise CheckpointError(content.describe_damage(tracking_option(options.tracking_uri)))


def ended_trials(plan: SweepPlan) -> int:
    """How many trials of the planned sweep ended for good under an earlier driver."""
    ledger = Ledger(plan.control / FILE, write=False)
    return sum(not StopReason(event["reason"]).resumable for event in ledger.of("end"))


def refuse_other_data(manifest: SweepManifest, data: Dataset) -> None:
    """Raise DataError, with the differences, unless `data` is what the sweep was started on."""
    if data.fingerprint != manifest.data_fingerprint:
        lines = "\n  ".join(differences(manifest.data, data.summary()))
        raise DataError(
            f"the data of sweep {manifest.name!r} has changed since it was started, so its trials "
            f"could not be compared. Restore it, or start a new sweep. The differences:\n  {lines}"
        )


def _recipe(manifest: SweepManifest, options: SweepOptions) -> Recipe:
    """The recipe as its file is now, with the changes of the sweep's start and of this command."""
    asked = options.recipe or manifest.recipe_asked
    changes = {**_kept_as_before(manifest), **manifest.changes, **options.changes}
    try:
        find_recipe(asked)
    except ConfigError:
        if options.recipe:
            raise
        own = {p: v for p, v in options.changes.items() if p.startswith("budget.")}
        if len(own) < len(options.changes):
            raise
        kept = {
            p: v for p, v in _kept_as_before(manifest).items() if p.startswith(("budget.", "asha."))
        }
        recorded: Recipe = decode(Recipe, override(Recipe, _whole(manifest), {**kept, **own}))
        return recorded  # the file is gone; the manifest holds the whole recipe
    recipe = load_recipe(asked, changes, options.data or manifest.data_asked)
    return recipe.model_copy(update={"name": manifest.recipe["name"]})


def _settled(manifest: SweepManifest, recipe: Recipe) -> SettledWeights:
    """What the weights had become when the sweep started; new encoders' are yet to be resolved."""
    known = manifest.encoder_weights or {recipe.base.encoder.full_name: manifest.weights}
    asked = {encoder.full_name: encoder.weights for encoder in recipe.encoders()}
    space: Space = decode(Space, manifest.added_space)
    return SettledWeights({**asked, **known} if len(asked) > 1 else known, space)


def _kept_as_before(manifest: SweepManifest) -> dict[str, Any]:
    """What an earlier version did where it had no setting yet, unless told otherwise."""
    kept = settings_before(manifest.recipe["base"])
    if "keep_models" not in manifest.recipe.get("budget", {}):
        kept["budget.keep_models"] = "all"
    if "judged" not in manifest.recipe.get("asha", {}):
        kept["asha.judged"] = "last"
    return kept


def _refuse_changes(manifest: SweepManifest, recipe: Recipe, *, may_grow: bool) -> None:
    grows = ("space.", "points")
    lines = [
        line
        for line in differences(_whole(manifest), recipe.tree())
        if not line.startswith(("budget.", "description", *(grows if may_grow else ())))
    ]
    if not lines:
        return
    may = "only its budget may change"
    if may_grow:
        may = "only its budget, its space and its points may change"
    elif all(line.startswith(grows) for line in lines):
        may += f" unless a recipe is named (--resume {manifest.name} --recipe {_asked(manifest)})"
    raise ConfigError(
        f"sweep {manifest.name!r} was started with another recipe, and {may}. Undo the changes, or "
        "start a new sweep (--warm-start lets it use this one's trials). The differences:\n  "
        + "\n  ".join(lines)
    )


def _asked(manifest: SweepManifest) -> str:
    return shlex.quote(manifest.recipe_asked)


def _whole(manifest: SweepManifest) -> Tree:
    """The recipe in the manifest, with defaults for settings that were added since."""
    base = decode_recorded(manifest.recipe["base"]).tree()
    asha = {"judged": "last", **manifest.recipe.get("asha", {})}
    recorded: Recipe = decode(Recipe, {**manifest.recipe, "base": base, "asha": asha})
    return recorded.tree()


def _refuse_fewer_trials(recipe: Recipe, ledger: Ledger) -> None:
    proposed = sum(1 for _ in ledger.of("trial"))
    if recipe.budget.trials < proposed:
        raise ConfigError(
            f"--trials {recipe.budget.trials}: {proposed} trials have been proposed already. The "
            "number can only grow."
        )
