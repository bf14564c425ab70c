"""Finding the local folder of a model by its address: the only module here that uses MLflow.

An address is a path, a run's id (as `runs:/ID`, too) or a registered model (`models:/NAME@ALIAS`
or `models:/NAME/VERSION`).
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unetexp.errors import CheckpointError, UserError, did_you_mean
from unetexp.models.saved_model import CONFIG, WEIGHTS
from unetexp.system.shell import installed, script
from unetexp.tracking.moved import EXPERIMENT, require_unmoved
from unetexp.tracking.moved import local_path as local_path
from unetexp.tracking.server import answered, public_uri, scheme_of, without_secrets
from unetexp.tracking.uri import VARIABLE, absolute, check_place, sqlite_path, tracking_option
from unetexp.training.config import SCORE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

# Read by MLflow when it is imported or used, which is why this file imports it late.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# MLflow would retry a lost server for minutes without a message; we check and tell the user.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

T = TypeVar("T")

CHECKPOINT = "checkpoint"  # the artifact folder of a run with its weights, and its tag
SCORE_TAG = "sweep.score"  # tag of a trial whose sweep compares by another metric than val/miou
DATABASE_ANSWER_S = 60.0  # a database server's first answer includes creating tables

_FORMS = (
    f"A model is a folder with {WEIGHTS} and {CONFIG}, the id of an MLflow run (32 digits and "
    "letters a to f), runs:/ID, models:/NAME@ALIAS or models:/NAME/VERSION."
)
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_RUN = re.compile(rf"runs:/+([^/]+)(?:/{CHECKPOINT})?/?")
_REGISTERED = re.compile(r"models:/+([^/@]+)(?:@([^/@]+)|/(\d{1,9}))")
# the model's place in the folder of an experiment, a run or a registered model
_INSIDE = ("best", CHECKPOINT, "artifacts", f"artifacts/{CHECKPOINT}")
_NAMED_AT_MOST = 10


def locate(address: str, tracking_uri: str | None = None) -> Path:
    """The folder with `model.safetensors` and `config.json` of the model at `address`.

    An address that exists as a path is used as a path: the folder, a file in it, or the folder of
    an experiment or a run around it. Others are looked up in the tracking store, by default the
    one at `default_uri()`. Files from a server are removed when this process ends. Raises
    CheckpointError if there is no model, UserError if the store cannot be used.
    """
    path = local_path(address)
    if path is not None and os.path.lexists(path.expanduser()):
        return model_folder(path.expanduser())
    if run := _RUN.fullmatch(address):
        return checkpoint_of(connect(tracking_uri), run[1])
    if _RUN_ID.fullmatch(address.lower()):
        return checkpoint_of(connect(tracking_uri), address.lower())
    if registered := _REGISTERED.fullmatch(address):
        name, alias, version = registered.groups()
        return _registered_model(connect(tracking_uri), name, alias, version)
    if re.match(r"(runs|models):", address):
        raise CheckpointError(f"{address}: this address is incomplete or has extra parts. {_FORMS}")
    raise CheckpointError(f"{address}: there is no such file or folder. {_FORMS}")


def run_id_at(address: str, tracking_uri: str | None = None) -> str | None:
    """The id of the run that trained the model at `address`; None for a path. As `locate`."""
    path = local_path(address)
    if path is not None and os.path.lexists(path.expanduser()):
        return None
    if run := _RUN.fullmatch(address):
        return run[1]
    if _RUN_ID.fullmatch(address.lower()):
        return address.lower()
    if registered := _REGISTERED.fullmatch(address):
        name, alias, version = registered.groups()
        return _version(connect(tracking_uri), name, alias, version).run_id or None
    return None


def model_folder(place: Path) -> Path:
    """The model's folder at, around or in `place`; CheckpointError if there is none."""
    around = place.parent if place.is_file() and place.name in (WEIGHTS, CONFIG) else place
    for folder in (around, *(around / name for name in _INSIDE)):
        if all((folder / name).is_file() for name in (WEIGHTS, CONFIG)):
            return folder
    if place.is_file():
        raise CheckpointError(f"{place}: this is not a model, or {CONFIG} is missing. {_FORMS}")
    if any((folder / CONFIG).is_file() for folder in (around, around / "best")):
        raise CheckpointError(
            f"{place}: {WEIGHTS} is missing. Only the best trials of a sweep keep their weights "
            f"(budget.keep_models); `unetexp reproduce RUN_ID` trains another one again. {_FORMS}"
        )
    raise CheckpointError(f"{place}: {WEIGHTS} and {CONFIG} are missing. {_FORMS}")


def checkpoint_of(client: MlflowClient, run_id: str) -> Path:
    """The folder, on this machine, with the weights and config of a trial's run.

    Raises CheckpointError for a run without them, naming those of its sweep that have them.
    """
    run = find_run(client, run_id)
    held = {entry.path for entry in asked(client, client.list_artifacts, run_id, CHECKPOINT)}
    if not held.issuperset(f"{CHECKPOINT}/{name}" for name in (WEIGHTS, CONFIG)):
        raise CheckpointError(_no_checkpoint(client, run))
    here = local_path(run.info.artifact_uri)
    if here is not None:
        return model_folder(here / CHECKPOINT)
    fetched = asked(client, client.download_artifacts, run_id, CHECKPOINT, _scratch())
    return model_folder(Path(fetched))


def find_run(client: MlflowClient, run_id: str) -> Run:
    """The run; CheckpointError if the store has none with that id."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException:
        raise CheckpointError(
            f"there is no run {run_id!r} at {public_uri(client.tracking_uri)}. A run's id is the "
            "last part of its address in the MLflow UI; another store is named with "
            f"--tracking-uri or {VARIABLE}."
        ) from None


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the tracking store, after a check that it exists; nothing is created.

    Raises UserError for a store that does not exist, cannot be read or does not answer, and for a
    database that was moved.
    """
    uri = absolute(tracking_uri)
    if scheme_of(uri) == "sqlite" and not sqlite_path(uri).exists():
        raise UserError(
            f"there is no tracking database {sqlite_path(uri)}: no sweep has run here. Name the "
            f"store with --tracking-uri or {VARIABLE}, or give the path of a model's folder."
        )
    check_place(uri, write=False)
    limit_s = None if scheme_of(uri).startswith("http") else DATABASE_ANSWER_S
    answered(uri, lambda: open_client(uri).search_experiments(max_results=1), limit_s)
    client = open_client(uri)
    if scheme_of(uri) == "sqlite" and (ours := client.get_experiment_by_name(EXPERIMENT)):
        require_unmoved(uri, ours)
    return client


def open_client(uri: str) -> MlflowClient:
    """A client of the store at the absolute `uri`, with fewer log messages from MLflow."""
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def asked(client: MlflowClient, question: Callable[..., T], *arguments: object) -> T:
    """The store's answer; CheckpointError, without credentials, if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return question(*arguments)
    except (MlflowException, OSError) as error:
        reason = without_secrets(str(error).partition("\n")[0], client.tracking_uri)
        place = public_uri(client.tracking_uri)
        raise CheckpointError(f"the files are not available from {place}: {reason}") from None


def _registered_model(
    client: MlflowClient, name: str, alias: str | None, version: str | None
) -> Path:
    from mlflow.artifacts import download_artifacts

    found = _version(client, name, alias, version)
    source = asked(client, client.get_model_version_download_uri, name, found.version)
    here = local_path(source)
    if here is not None:
        return model_folder(here)
    fetched = asked(
        client,
        lambda: download_artifacts(
            artifact_uri=source, dst_path=_scratch(), tracking_uri=client.tracking_uri
        ),
    )
    return model_folder(Path(fetched))


def _version(
    client: MlflowClient, name: str, alias: str | None, version: str | None
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, str(version))
    except MlflowException:
        address = f"models:/{name}" + (f"@{alias}" if alias else f"/{version}")
        message = f"{address}: {_what_is_registered(client, name, alias)}"
        raise CheckpointError(message) from None


def _what_is_registered(client: MlflowClient, name: str, alias: str | None) -> str:
    """What is registered instead of the requested version."""
    place = public_uri(client.tracking_uri)
    models = {model.name: model for model in asked(client, client.search_registered_models)}
    if name not in models:
        known = ", ".join(sorted(models)) or f"none yet ({_promote(client)} registers one)"
        return (
            f"no model {name!r} is registered at {place}.{did_you_mean(name, models)} "
            f"Registered: {known}."
        )
    if alias is not None:
        aliases = asked(client, client.get_registered_model, name).aliases
        known = ", ".join(sorted(aliases)) or f"none yet ({_promote(client)} gives one)"
        return f"the model has no such alias.{did_you_mean(alias, aliases)} Aliases: {known}."
    versions = asked(client, client.search_model_versions, f"name = '{name}'")
    numbers = sorted(int(each.version) for each in versions)
    return f"there is no such version. Versions: {', '.join(map(str, numbers)) or 'none'}."


def _promote(client: MlflowClient) -> str:
    return script("promote", *_option(client))


def _option(client: MlflowClient) -> tuple[str, ...]:
    uri = client.tracking_uri
    return tracking_option(None if uri == absolute(None) else uri)


def _no_checkpoint(client: MlflowClient, run: Run) -> str:
    parent = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    kind = "trial" if "mlflow.parentRunId" in run.data.tags else "sweep"
    given = f"{kind} {run.info.run_name} (run {run.info.run_id}) holds no weights"
    named = "".join(f"\n  {line}" for line in _with_weights(client, run.info.experiment_id, parent))
    if not named:
        return f"{given}, and no other run of its sweep does: they are kept when a sweep ends."
    return (
        f"{given}: only the best trials of a sweep keep them (budget.keep_models)."
        f"{_train_again(client, run) if kind == 'trial' else ''} Use one of these runs:{named}"
    )


def _train_again(client: MlflowClient, run: Run) -> str:
    again = installed("unetexp", "reproduce", run.info.run_id, *_option(client))
    return f" To train it again: {again}\n "


def _with_weights(client: MlflowClient, experiment_id: str, parent: str) -> Iterator[str]:
    """The runs of a sweep that have weights, best first."""
    holds = f"tags.mlflow.parentRunId = '{parent}' AND tags.`{CHECKPOINT}` = '{CHECKPOINT}'"
    runs: list[Run] = asked(client, client.search_runs, [experiment_id], holds)
    runs.sort(key=lambda run: -run.data.metrics.get(f"best/{score_of(run)}", 0.0))
    for run in runs[:_NAMED_AT_MOST]:
        score = run.data.metrics.get(f"best/{score_of(run)}", float("nan"))
        yield f"{run.info.run_id}  {run.info.run_name}, best {score_of(run)} {score:.4f}"


def score_of(run: Run) -> str:
    """The metric by which the trial's sweep compares: that of the trial's best epoch."""
    return str(run.data.tags.get(SCORE_TAG, SCORE))


def _scratch() -> str:
    """A folder for downloads from a server, removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="unetexp-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
