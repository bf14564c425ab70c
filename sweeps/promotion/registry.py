"""The model registry: versions of the model `unetexp` and which of them is the champion.

Aliases have no compare-and-swap. Promotions on one machine take turns by a lock. On a tracking
server shared by several machines, each writes a claim before it checks that the champion is still
the one it was compared with, and removes the claim after setting the alias. It then waits until
there are no claims and reads the champion: all concurrent promotions see the same one.
"""

from __future__ import annotations

import getpass
import itertools
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from sweeps.promotion.model_package import CARD, package
from sweeps.tracking.store import TrackingStore
from unetexp.errors import UnetexpError, UserError
from unetexp.runtimes.flavors import PYTORCH

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

MODEL, CHAMPION, PREVIOUS = "unetexp", "champion", "previous"
PROMOTED_BY, PROMOTED_AT, REPLACED = "promoted.by", "promoted.at", "promoted.replaced"

_ABOUT = (
    "U-Nets promoted by sweeps/promote.py. Alias champion: the version in use; previous: the one "
    "before it."
)
_ARTIFACT = "model"  # the artifact folder of the run
_LONGEST = 5000  # characters that a database server accepts in a description or a tag
_CLAIM = "promotion.claim"  # seconds since 1970, on a version that is about to become the champion
_CLAIM_HOLDS_S = 60.0  # an older claim is from a promotion that was killed
_PATIENCE_S, _LOOK_S = 15.0, 0.2
_TRIES = 3


class LostRaceError(UnetexpError):
    """Another promotion made another version the champion meanwhile."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of the registered model."""

    version: str
    run_id: str
    tags: Mapping[str, str]


PRESENT: Final = RegisteredVersion(
    "present", "", {}
)  # stands for the champion at the time of the call


# Versions


def register(
    store: TrackingStore,
    folder: Path,
    *,
    card: str,
    tags: Mapping[str, str],
    run_id: str,
    example: NDArray[Any],
    exports: Mapping[str, Path] = MappingProxyType({}),
    flavor: str = PYTORCH,
) -> str:
    """Make the model in `folder` a version of the registered model, and return its number.

    It becomes an artifact of the run `run_id`, with the card beside it. No alias is set.
    `example` is an image (H, W, C) as the model takes it; `exports` are files by name, one of
    which may be the `flavor` that the model is used with. Raises CheckpointError and DataError as
    `model_package.package` does.
    """
    client = store.client
    with tempfile.TemporaryDirectory() as scratch:
        name = _free_folder(store, run_id)
        package(
            folder,
            Path(scratch, name),
            run_id=run_id,
            name=name,
            example=example,
            exports=exports,
            flavor=flavor,
        )
        Path(scratch, name, CARD).write_text(card, encoding="utf-8")
        client.log_artifacts(run_id, scratch)
    if _registered_model(store) is None:
        _create_registered_model(store)
    root = client.get_run(run_id).info.artifact_uri
    version = client.create_model_version(
        MODEL,
        source=f"{root}/{name}",
        run_id=run_id,
        tags={key: str(value)[:_LONGEST] for key, value in tags.items()},
        description=_shortened(card, name),
    )
    return str(version.version)


def withdraw(store: TrackingStore, version: str) -> None:
    """Delete a version that was never the champion, with its files."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    source = store.client.get_model_version(MODEL, version).source
    assert source, "register has set it"
    store.client.delete_model_version(MODEL, version)
    repository = get_artifact_repository(source, tracking_uri=store.uri)
    with suppress(NotImplementedError):  # some stores cannot delete artifacts
        repository.delete_artifacts()  # type: ignore[no-untyped-call]


def champion(store: TrackingStore) -> RegisteredVersion | None:
    """The version in use, or None where nothing has been promoted."""
    return version_of(store, CHAMPION)


def version_of(store: TrackingStore, alias: str) -> RegisteredVersion | None:
    """The version that an alias names, or None."""
    number = _aliases(store).get(alias)
    if number is None:
        return None
    entry = store.client.get_model_version(MODEL, number)
    return RegisteredVersion(str(entry.version), entry.run_id or "", dict(entry.tags))


# Changing the champion


def set_champion(
    store: TrackingStore, version: str, *, compared_with: RegisteredVersion | None = PRESENT
) -> RegisteredVersion | None:
    """Make `version` the champion; returns the old champion, which becomes the previous version.

    `compared_with` is the champion with which the version was compared. Raises LostRaceError,
    naming the current champion, where `compared_with` is no longer the champion (then nothing is
    changed) and where another promotion at the same time has won.
    """
    before = champion(store) if compared_with is PRESENT else compared_with
    base = before.version if before else None
    if version == base:
        return before
    client = store.client
    client.set_model_version_tag(MODEL, version, _CLAIM, f"{time.time():.0f}")
    try:
        _require_champion(store, base, version)
        if base:
            _point(store, PREVIOUS, base)
        _point(store, CHAMPION, version)
    finally:
        client.delete_model_version_tag(MODEL, version, _CLAIM)
    _wait_for_claims(store)
    _require_champion(store, version, version)
    signature = {PROMOTED_BY: _who(), PROMOTED_AT: _now(), REPLACED: base or "none"}
    for key, value in signature.items():
        client.set_model_version_tag(MODEL, version, key, value)
    return before


def rollback(store: TrackingStore) -> tuple[str, str]:
    """Swap champion and previous; returns the version that is champion now and the one before.

    Raises UserError where there is no previous version, and LostRaceError where another champion
    was set at the same time.
    """
    aliases = _aliases(store)
    before, now = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if before is None:
        raise UserError(
            f"the registered model {MODEL!r} has no champion, so there is nothing to roll back. "
            f"Promote one first: {store.command('promote', 'SWEEP')}"
        )
    if now is None or now == before:
        raise UserError(
            f"version {before} is the only champion that the registered model {MODEL!r} has had: "
            "there is no previous one to roll back to."
        )
    _point(store, CHAMPION, now)
    _point(store, PREVIOUS, before)
    _require_champion(store, now, now)
    return now, before


def _point(store: TrackingStore, alias: str, version: str) -> None:
    """Set `alias`, with retries: two that set a new alias at once collide in the database."""
    from mlflow.exceptions import MlflowException

    for attempt in range(_TRIES):
        try:
            store.client.set_registered_model_alias(MODEL, alias, version)
            return
        except MlflowException:
            if attempt + 1 == _TRIES:
                raise
            time.sleep(_LOOK_S)


def _wait_for_claims(store: TrackingStore) -> None:
    """Wait until every promotion that may have seen the old champion has written."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        entries = store.client.search_model_versions(f"name = '{MODEL}'")
        claims = [float(entry.tags[_CLAIM]) for entry in entries if _CLAIM in entry.tags]
        if not [claim for claim in claims if time.time() - claim < _CLAIM_HOLDS_S]:
            return
        time.sleep(_LOOK_S)


def _require_champion(store: TrackingStore, expected: str | None, promoted: str) -> None:
    """LostRaceError unless the champion is the version `expected`; None: unless there is none."""
    now = champion(store)
    if (now.version if now else None) == expected:
        return
    if now is None:
        found = "the version that it was compared with is no longer the champion"
    else:
        by = f", promoted by {now.tags[PROMOTED_BY]}" if PROMOTED_BY in now.tags else ""
        found = f"version {now.version} became the champion meanwhile{by}"
    raise LostRaceError(
        f"version {promoted} of {MODEL!r} is not the champion: {found}. It stays registered; to "
        "compare it with the current champion, promote it again."
    )


# Reading and writing MLflow


def _aliases(store: TrackingStore) -> dict[str, str]:
    """Alias -> version."""
    model = _registered_model(store)
    return {alias: str(version) for alias, version in model.aliases.items()} if model else {}


def _registered_model(store: TrackingStore) -> RegisteredModel | None:
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _create_registered_model(store: TrackingStore) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(MODEL, description=_ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
            raise


def _free_folder(store: TrackingStore, run_id: str) -> str:
    """An artifact folder for one more version from the run."""
    taken = {entry.path for entry in store.client.list_artifacts(run_id)}
    numbered = (f"{_ARTIFACT}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([_ARTIFACT], numbered) if name not in taken)


def _shortened(card: str, name: str) -> str:
    """The card as a description, cut to the length that databases accept."""
    if len(card) <= _LONGEST:
        return card
    rest = f"\n\n(Cut here: the whole card is {name}/{CARD} among the run's artifacts.)"
    return card[: _LONGEST - len(rest)].rpartition("\n")[0] + rest


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user on this machine, as in a container
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
