"""The proof of a run's settings: after its first epoch all of them, later those that change.

A setting that is ignored on its way leaves runs that are all alike, without an error. So what was
asked for is compared with the tensors, the optimiser, the loss and the batch that were in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unetexp.component import flatten
from unetexp.errors import SettingIgnoredError
from unetexp.training.proof.batches import batch_readings, compute_readings
from unetexp.training.proof.frozen import frozen_readings
from unetexp.training.proof.losses import loss_readings
from unetexp.training.proof.model import decoder_readings, encoder_readings
from unetexp.training.proof.rates import optimizer_readings, rate_readings
from unetexp.training.proof.reading import LiveRun, Reading

_Reader = Callable[[LiveRun], Iterator[Reading]]

_ONCE: tuple[_Reader, ...] = (
    encoder_readings,
    decoder_readings,
    optimizer_readings,
    loss_readings,
    batch_readings,
    compute_readings,
    frozen_readings,
    rate_readings,
)
_NOT_OF_A_RUN = ("data.", "epochs")  # shared by all trials of a sweep
_MOST_NAMED = 5


def prove(run: LiveRun) -> None:
    """Compare what trains with its configuration; the record is in the state's `settings`.

    All settings in the first epoch of this process, later the learning rate, and what has thawed.
    Raises SettingIgnoredError naming each setting, what was asked for and what is in use.
    """
    first = not run.state.settings
    thaws = run.epoch == run.config.encoder.thaw_epoch
    readers = _ONCE if first else (rate_readings, *([frozen_readings] if thaws else []))
    readings = [reading for reader in readers for reading in reader(run)]
    broken = [reading for reading in readings if not reading.holds]
    if broken:
        raise SettingIgnoredError(_complaint(run.epoch, broken))
    if first:
        run.state.settings = _record(run, readings)


def _complaint(epoch: int, broken: list[Reading]) -> str:
    sentences = [reading.describe() for reading in broken[:_MOST_NAMED]]
    more = [f"and {len(broken) - _MOST_NAMED} more"] if len(broken) > _MOST_NAMED else []
    return (
        f"a setting is ignored in epoch {epoch}, so this run was stopped: its scores would be "
        f"those of other settings. {'; '.join([*sentences, *more])}."
    )


def _record(run: LiveRun, readings: list[Reading]) -> dict[str, str]:
    """`proved` and `not_read`: the settings' paths, in the configuration's order."""
    proved = {reading.setting for reading in readings}
    paths = [path for path in flatten(run.config.tree()) if not path.startswith(_NOT_OF_A_RUN)]
    covered = [path for path in paths if _is_proved(path, proved)]
    return {
        "proved": ", ".join(covered),
        "not_read": ", ".join(path for path in paths if path not in covered),
    }


def _is_proved(path: str, proved: set[str]) -> bool:
    return (
        path in proved
        or path.partition(".")[0] in proved & {"schedule"}
        or (
            path.endswith(".kind") and any(name.startswith(path[: -len("kind")]) for name in proved)
        )
    )
