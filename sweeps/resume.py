"""Planning to go on with a sweep: it is found, and what has changed is refused."""

from __future__ import annotations

from pathlib import Path

from sweeps.ledger import FILE, Ledger
from sweeps.plan import Options, Plan, control_folder, placement_at
from sweeps.recipe import Recipe, differences, find_recipe, load_recipe
from sweeps.record import Record, read_record
from sweeps.storage import Storage
from sweeps.store import check_tracking, open_existing
from sweeps.tally import INTERRUPTED
from unetexp.component import Tree, decode, override
from unetexp.data import Dataset
from unetexp.errors import ConfigError, DataError, UserError


def plan_resume(name: str, options: Options) -> tuple[Plan, Record]:
    """The plan of the sweep `name` as it was, with what `options` may change of it.

    Its budget may grow and its placement may be another. Raises UserError for a sweep that is
    not there and ConfigError, with the differences, for a recipe that has changed.
    """
    control = find_control(name, options)
    record = read_record(control)
    recipe = _recipe(record, options)
    _refuse_changes(record, recipe)
    _refuse_fewer_trials(recipe, control)
    gpus = record.gpus if options.gpus is None else options.gpus
    simulated = record.simulate_gpus if options.simulate_gpus is None else options.simulate_gpus
    record.changes |= dict(options.changes)
    record.gpus, record.simulate_gpus = gpus, simulated
    base = recipe.base
    settled = base.encoder.model_copy(update={"weights": record.weights})
    recipe = recipe.model_copy(update={"base": base.model_copy(update={"encoder": settled})})
    plan = Plan(
        name=name,
        recipe=recipe,
        placement=placement_at(options.address, recipe.budget, gpus, simulated),
        tracking_uri=check_tracking(options.tracking_uri),
        storage=Storage(record.storage),
        options=options,
    )
    return plan, record


def find_control(name: str, options: Options) -> Path:
    """The folder with the record and the ledger of the sweep `name`."""
    store = open_existing(options.tracking_uri)
    if store is None:
        raise UserError(f"there is no sweep named {name!r}: no sweep has been started yet.")
    storage = store.sweep_run(name).data.tags["sweep.storage"]
    return control_folder(Storage(storage), name)


def ended_trials(plan: Plan) -> int:
    """How many trials of the planned sweep ended for good under an earlier driver."""
    ledger = Ledger(plan.control / FILE, write=False)
    return sum(event["reason"] != INTERRUPTED for event in ledger.of("end"))


def refuse_other_data(record: Record, data: Dataset) -> None:
    """Raise DataError, with the differences, unless `data` is what the sweep was started on."""
    if data.fingerprint != record.data_fingerprint:
        lines = "\n  ".join(differences(record.data, data.summary()))
        raise DataError(
            f"the data of sweep {record.name!r} has changed since it was started, so its trials "
            f"could not be compared. Restore it, or start a new sweep. The differences:\n  {lines}"
        )


def _recipe(record: Record, options: Options) -> Recipe:
    """The recipe as it reads today, with the sweep's own changes and today's."""
    asked = options.recipe or record.recipe_asked
    changes = {**record.changes, **options.changes}
    try:
        find_recipe(asked)
    except ConfigError:
        if options.recipe:
            raise
        own = {p: v for p, v in options.changes.items() if p.startswith("budget.")}
        if len(own) < len(options.changes):
            raise
        recorded: Recipe = decode(Recipe, override(Recipe, record.recipe, own))
        return recorded  # the file is gone; the record is whole
    return load_recipe(asked, changes, options.data or record.data_asked)


def _refuse_changes(record: Record, recipe: Recipe) -> None:
    lines = [
        line
        for line in differences(_whole(record), recipe.tree())
        if not line.startswith(("budget.", "description"))
    ]
    if lines:
        raise ConfigError(
            f"sweep {record.name!r} was started with another recipe, and only its budget may "
            "change. Put it back, or start a new sweep (--warm-start makes it know this one's "
            "trials). The differences:\n  " + "\n  ".join(lines)
        )


def _whole(record: Record) -> Tree:
    """The recipe on record, with the settings that recipes have got since."""
    recorded: Recipe = decode(Recipe, record.recipe)
    return recorded.tree()


def _refuse_fewer_trials(recipe: Recipe, control: Path) -> None:
    ledger = Ledger(control / FILE, write=False)
    proposed = sum(1 for _ in ledger.of("trial"))
    if recipe.budget.trials < proposed:
        raise ConfigError(
            f"--trials {recipe.budget.trials}: {proposed} trials have been proposed already. The "
            "number can only grow."
        )
