"""The table of recorded curves: a Parquet file, a row an epoch, with its origin as metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from unetexp.errors import UserError

TABLE = Path(__file__).with_name("curves.parquet")  # the recorded one that comes with the code
RUN = ["set", "config", "seed"]  # the columns that name a run
EXPERIMENT = ("space", "base", "epochs")  # what all runs of a table share, by its origin
_ORIGIN = b"unetexp.curves"  # the key of the metadata


@dataclass(frozen=True)
class Curves:
    """Recorded curves.

    `rows` has the columns of RUN, the searched values by dotted path, `epoch`, every metric, and
    the CPU and wall seconds of the epoch itself.
    """

    rows: pd.DataFrame
    origin: dict[str, Any]  # commands, machines, versions, first and last date, the experiment

    @property
    def sets(self) -> list[str]:
        return list(self.rows["set"].unique())

    def of_set(self, name: str) -> pd.DataFrame:
        if name not in self.sets:
            raise UserError(f"the table has no curves of {name!r}, but of {', '.join(self.sets)}.")
        return self.rows[self.rows["set"] == name]


def curves_of(records: list[dict[str, Any]]) -> Curves:
    """The records of `benchmarks/curves/record.py` as a table, each run once."""
    if not records:
        raise UserError("there are no recorded runs: `record.py run` makes them.")
    records = list({tuple(record[name] for name in RUN): record for record in records}.values())
    frames = [_rows(record) for record in records if record["history"]]
    rows = pd.concat(frames, ignore_index=True).sort_values([*RUN, "epoch"], ignore_index=True)
    dates = [record["at"] for record in records]
    several = {
        "commands": sorted({record["command"] for record in records}),
        "machines": sorted({record["machine"] for record in records}),
        "versions": [json.loads(v) for v in sorted({json.dumps(r["versions"]) for r in records})],
    }
    one = {name: records[0][name] for name in EXPERIMENT}
    span = {"first": min(dates), "last": max(dates), "runs": len(records)}
    failed = [[r[name] for name in RUN] for r in records if "error" in r]
    return Curves(rows, {**several, **one, **span, "failed": failed})


def _rows(record: dict[str, Any]) -> pd.DataFrame:
    rows = pd.DataFrame(record["history"])
    for clock in ("cpu_s", "wall_s"):  # since the start of the run -> of the epoch
        rows[clock] = rows[clock].diff().fillna(rows[clock])
    rows.insert(0, "epoch", range(1, len(rows) + 1))
    names = {**{name: record[name] for name in RUN}, **record["values"]}
    named = pd.DataFrame({name: [value] * len(rows) for name, value in names.items()})
    return pd.concat([named, rows.drop(columns=names, errors="ignore")], axis=1)


def require_same(known: Curves, experiment: dict[str, Any]) -> None:
    """UserError unless the known table is of this experiment."""
    for name in EXPERIMENT:
        if known.origin[name] != experiment[name]:
            raise UserError(
                f"the known table is of another experiment, by its {name}: {known.origin[name]}, "
                f"not {experiment[name]}. Leave --known out, or repeat its command: "
                f"{known.origin['commands'][0]}"
            )


def joined(known: Curves, new: Curves) -> Curves:
    """Both tables as one. UserError unless they are of the same experiment."""
    require_same(known, new.origin)
    origin = {name: known.origin[name] for name in EXPERIMENT}
    for name in ("commands", "machines", "versions", "failed"):
        found = [*known.origin[name], *new.origin[name]]
        origin[name] = [one for i, one in enumerate(found) if one not in found[:i]]
    origin["first"] = min(known.origin["first"], new.origin["first"])
    origin["last"] = max(known.origin["last"], new.origin["last"])
    rows = pd.concat([known.rows, new.rows], ignore_index=True).drop_duplicates([*RUN, "epoch"])
    origin["runs"] = len(rows.drop_duplicates(RUN))
    return Curves(rows.sort_values([*RUN, "epoch"], ignore_index=True), origin)


def write_table(curves: Curves, path: Path) -> None:
    """Write the table and print what it holds."""
    table = pa.Table.from_pandas(curves.rows, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _ORIGIN: json.dumps(curves.origin).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")
    configs = len(curves.rows.drop_duplicates(["set", "config"]))
    print(
        f"{path}: {curves.origin['runs']} runs of {configs} configurations and sets, "
        f"{len(curves.origin['failed'])} of them failed, {path.stat().st_size / 2**20:.2f} MiB"
    )


def read_table(path: Path) -> Curves:
    """The table of a file; UserError where it is none."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such table. `record.py table` writes one.")
    table = pq.read_table(path)
    origin = (table.schema.metadata or {}).get(_ORIGIN)
    if origin is None:
        raise UserError(f"{path} is not a table of curves: `record.py table` writes one.")
    return Curves(table.to_pandas(), json.loads(origin))
