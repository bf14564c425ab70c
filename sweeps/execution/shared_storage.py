"""Checks before a sweep starts that every node sees the data and the storage.

The driver writes a random token to the storage that each node reads, and each node writes one that
the driver reads: this detects a folder of the same name on another disk.
"""

from __future__ import annotations

import secrets

from pyarrow import fs

from sweeps.execution.cluster import node_name, on_every_node
from sweeps.execution.trial import data_on_this_node
from sweeps.state.storage import Storage
from unetexp.data import Dataset
from unetexp.errors import UserError
from unetexp.training.config import TrainConfig


def require_shared_storage(storage: Storage, data: Dataset, config: TrainConfig) -> None:
    """Raise UserError naming the node that lacks the storage or the data; Ray must be joined."""
    _require_storage(storage)
    for node, fingerprint in on_every_node(_fingerprint, data, config).items():
        if fingerprint != data.fingerprint:
            raise UserError(
                f"node {node_name(node)}: its data differs from the data here (fingerprint "
                f"{fingerprint[:12]}, here {data.fingerprint[:12]}). Give all nodes the same files."
            )


def _require_storage(storage: Storage) -> None:
    token = secrets.token_hex(8)
    name = f".shared-{token}"
    storage.require_writable()
    _write(storage, name, token)
    try:
        for node, answer in on_every_node(_answer, storage, name, token).items():
            if _read(storage, answer) != token:
                raise UserError(f"node {node_name(node)}: {_not_shared(storage)}")
            _remove(storage, answer)
    finally:
        _remove(storage, name)


def _answer(storage: Storage, name: str, token: str) -> str:
    """On a node: read the driver's token and write it to another file; returns that file's name."""
    if _read(storage, name) != token:
        raise UserError(_not_shared(storage))
    storage.require_writable()
    answer = f"{name}-{secrets.token_hex(8)}"
    _write(storage, answer, token)
    return answer


def _not_shared(storage: Storage) -> str:
    return (
        f"storage {storage.root} is not the same folder there as here. Choose one that all nodes "
        "share with --storage: a folder on NFS mounted at the same path, or s3://BUCKET/PATH."
    )


def _write(storage: Storage, name: str, text: str) -> None:
    system, path = fs.FileSystem.from_uri(storage.root)
    with system.open_output_stream(f"{path}/{name}") as stream:
        stream.write(text.encode())


def _read(storage: Storage, name: str) -> str | None:
    system, path = fs.FileSystem.from_uri(storage.root)
    try:
        with system.open_input_stream(f"{path}/{name}") as stream:
            return bytes(stream.read()).decode()
    except OSError:
        return None


def _remove(storage: Storage, name: str) -> None:
    system, path = fs.FileSystem.from_uri(storage.root)
    system.delete_file(f"{path}/{name}")


def _fingerprint(data: Dataset, config: TrainConfig) -> str:
    return data_on_this_node(data, config).fingerprint
