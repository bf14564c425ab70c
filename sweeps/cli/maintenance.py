"""What `run.py` does beside running sweeps: list and delete them, repair, relocate."""

from __future__ import annotations

import typer
from rich.console import Console

from sweeps.driver.ledger_repair import truncate_ledger
from sweeps.driver.plan import SweepOptions
from sweeps.state.ledger import TRUNCATE
from sweeps.text import count
from sweeps.tracking.relocation import plan_relocation
from sweeps.tracking.relocation import relocate as rewrite_addresses
from sweeps.tracking.store import open_existing
from sweeps.tracking.sweep_list import check_deletable, delete_sweep, sweep_rows, sweep_table
from unetexp.cli.exit_codes import DONE
from unetexp.errors import ConfigError


def list_sweeps(tracking_uri: str | None) -> None:
    """Print the sweeps of a store; of a moved one too, with a warning."""
    console = Console(highlight=False)

    def warn(text: str) -> None:
        console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    store = open_existing(tracking_uri, warn)
    rows = sweep_rows(store) if store else []
    console.print(sweep_table(rows) if rows else "There are no sweeps yet.")


def delete(tracking_uri: str | None, name: str, yes: bool) -> None:
    """Remove a sweep, its runs and its files, after asking."""
    store = open_existing(tracking_uri)
    if store is None:
        raise ConfigError(f"--delete {name}: there are no sweeps yet.")
    what = check_deletable(store, name)
    if not yes and not typer.confirm(f"Remove {what}?"):
        raise typer.Exit(DONE)
    delete_sweep(store, name)
    Console(highlight=False, markup=False).print(f"removed {name}")


def relocate(tracking_uri: str | None, yes: bool) -> None:
    """Rewrite the addresses of a moved project, after asking."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    relocation = plan_relocation(tracking_uri)
    if relocation is None:
        console.print("All addresses are correct: there is nothing to rewrite.")
        return
    console.print(relocation.describe())
    if not yes and not typer.confirm("Rewrite them? A copy of the database is kept."):
        raise typer.Exit(DONE)
    done = rewrite_addresses(relocation)
    console.print(f"{done.values} addresses and {count(done.files, 'file')} were rewritten")
    console.print(f"copy of the old database: {done.copy}")


def truncate(name: str | None, options: SweepOptions, dry_run: bool) -> None:
    """Cut a damaged ledger before its damage, keeping a copy."""
    if name is None or dry_run:
        raise ConfigError(f"{TRUNCATE} needs --resume NAME and cannot be combined with --dry-run.")
    console = Console(highlight=False, soft_wrap=True)
    for line in truncate_ledger(name, options):
        console.print(line, markup=False)
