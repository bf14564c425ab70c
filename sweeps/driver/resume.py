"""Planning to go on with a sweep: it is found, and what has changed is refused."""

from __future__ import annotations

from pathlib import Path

from sweeps.config.recipe import Recipe, differences, find_recipe, load_recipe
from sweeps.driver.plan import SweepOptions, SweepPlan, control_folder, placement_at
from sweeps.state.ledger import FILE, Ledger
from sweeps.state.manifest import SweepManifest, read_manifest
from sweeps.state.progress import INTERRUPTED
from sweeps.state.storage import Storage
from sweeps.tracking.store import check_tracking, open_existing
from unetexp.component import Tree, decode, override
from unetexp.data import Dataset
from unetexp.errors import ConfigError, DataError, UserError


def plan_resume(name: str, options: SweepOptions) -> tuple[SweepPlan, SweepManifest]:
    """The plan of the sweep `name` as it was, with what `options` may change of it.

    Its budget may grow and its placement may be another. Raises UserError for a sweep that is
    not there and ConfigError, with the differences, for a recipe that has changed.
    """
    control = find_control(name, options)
    manifest = read_manifest(control)
    recipe = _recipe(manifest, options)
    _refuse_changes(manifest, recipe)
    _refuse_fewer_trials(recipe, control)
    gpus = manifest.gpus if options.gpus is None else options.gpus
    simulated = manifest.simulate_gpus if options.simulate_gpus is None else options.simulate_gpus
    if options.changes or (gpus, simulated) != (manifest.gpus, manifest.simulate_gpus):
        manifest.estimated_s = None  # it was that of another sweep
    manifest.changes |= dict(options.changes)
    manifest.gpus, manifest.simulate_gpus = gpus, simulated
    base = recipe.base
    settled = base.encoder.model_copy(update={"weights": manifest.weights})
    recipe = recipe.model_copy(update={"base": base.model_copy(update={"encoder": settled})})
    plan = SweepPlan(
        name=name,
        recipe=recipe,
        placement=placement_at(options.address, recipe.budget, gpus, simulated),
        tracking_uri=check_tracking(options.tracking_uri),
        storage=Storage(manifest.storage),
        options=options,
    )
    return plan, manifest


def find_control(name: str, options: SweepOptions) -> Path:
    """The folder with the record and the ledger of the sweep `name`."""
    store = open_existing(options.tracking_uri)
    if store is None:
        raise UserError(f"there is no sweep named {name!r}: no sweep has been started yet.")
    storage = store.sweep_run(name).data.tags["sweep.storage"]
    return control_folder(Storage(storage), name)


def ended_trials(plan: SweepPlan) -> int:
    """How many trials of the planned sweep ended for good under an earlier driver."""
    ledger = Ledger(plan.control / FILE, write=False)
    return sum(event["reason"] != INTERRUPTED for event in ledger.of("end"))


def refuse_other_data(manifest: SweepManifest, data: Dataset) -> None:
    """Raise DataError, with the differences, unless `data` is what the sweep was started on."""
    if data.fingerprint != manifest.data_fingerprint:
        lines = "\n  ".join(differences(manifest.data, data.summary()))
        raise DataError(
            f"the data of sweep {manifest.name!r} has changed since it was started, so its trials "
            f"could not be compared. Restore it, or start a new sweep. The differences:\n  {lines}"
        )


def _recipe(manifest: SweepManifest, options: SweepOptions) -> Recipe:
    """The recipe as it reads today, with the sweep's own changes and today's."""
    asked = options.recipe or manifest.recipe_asked
    changes = {**manifest.changes, **options.changes}
    try:
        find_recipe(asked)
    except ConfigError:
        if options.recipe:
            raise
        own = {p: v for p, v in options.changes.items() if p.startswith("budget.")}
        if len(own) < len(options.changes):
            raise
        recorded: Recipe = decode(Recipe, override(Recipe, manifest.recipe, own))
        return recorded  # the file is gone; the record is whole
    return load_recipe(asked, changes, options.data or manifest.data_asked)


def _refuse_changes(manifest: SweepManifest, recipe: Recipe) -> None:
    lines = [
        line
        for line in differences(_whole(manifest), recipe.tree())
        if not line.startswith(("budget.", "description"))
    ]
    if lines:
        raise ConfigError(
            f"sweep {manifest.name!r} was started with another recipe, and only its budget may "
            "change. Put it back, or start a new sweep (--warm-start makes it know this one's "
            "trials). The differences:\n  " + "\n  ".join(lines)
        )


def _whole(manifest: SweepManifest) -> Tree:
    """The recipe on record, with the settings that recipes have got since."""
    recorded: Recipe = decode(Recipe, manifest.recipe)
    return recorded.tree()


def _refuse_fewer_trials(recipe: Recipe, control: Path) -> None:
    ledger = Ledger(control / FILE, write=False)
    proposed = sum(1 for _ in ledger.of("trial"))
    if recipe.budget.trials < proposed:
        raise ConfigError(
            f"--trials {recipe.budget.trials}: {proposed} trials have been proposed already. The "
            "number can only grow."
        )
