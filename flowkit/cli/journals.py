"""The journal that a command uses, and `flowkit journal`."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import typer

from flowkit.cli.options import CommandGroup, JournalAddress
from flowkit.cli.output import note, say
from flowkit.errors import ConfigurationError
from flowkit.journal import Journal, RunDetails, check_address, default_journal, is_url
from flowkit.journal import migrate as migrate_journal
from flowkit.journal.log import RUN_LEASE_S

app = typer.Typer(cls=CommandGroup, help="Set up the journal in a database.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Set up the journal in a database."""


@app.command()
def migrate(journal: JournalAddress = None) -> None:
    """Create or upgrade the journal's tables in PostgreSQL; safe to repeat, also while other processes write."""
    address = str(journal or default_journal())
    check_address(address)
    if not is_url(address):
        raise ConfigurationError(
            f"the journal {address!r} is a file, which needs no migration: --journal postgresql://… names a database"
        )
    say(migrate_journal(address))


@contextmanager
def open_journal(
    address: str | None, *, must_exist: bool = False, wait_s: float = 0.0, lease_s: float = RUN_LEASE_S
) -> Generator[Journal]:
    """Open this journal, or the default one; raises `ConfigurationError` if its file must exist and doesn't.

    Wait at most `wait_s` for a database that accepts no connections yet. `lease_s` after this process has died, its
    runs may be taken over.
    """
    found = address or default_journal()
    check_address(found)
    if not is_url(found):
        _check_file(Path(found), must_exist=must_exist)
    else:
        await_database(str(found), wait_s)
    journal = Journal(found, lease_s=lease_s)
    try:
        yield journal
    finally:
        journal.close()


def await_database(url: str, wait_s: float, *, what: str = "journal") -> None:
    """Wait at most `wait_s`, with a note, until this database accepts connections; leave other errors to the caller."""
    if wait_s <= 0 or find_spec("psycopg") is None or not url.startswith(("postgresql://", "postgres://")):
        return
    from flowkit.journal.postgres.address import read_address
    from flowkit.journal.postgres.link import wait_until_up

    wait_until_up(read_address(url, what=what), wait_s, note)


@contextmanager
def open_chosen_journal(address: str | None, *, wanted: bool) -> Generator[Journal | None]:
    """If a journal is named or needed, open it; else yield None."""
    if address is None and not wanted:
        yield None
        return
    with open_journal(address) as journal:
        yield journal


def find_run(journal: Journal, run_id: str) -> RunDetails:
    """Find a run; raises `ConfigurationError` if there is none."""
    found = journal.show(run_id)
    if found is None:
        raise ConfigurationError(f"no run {run_id!r} in {journal.name!r}")
    return found


def _check_file(path: Path, *, must_exist: bool) -> None:
    """Create the file's folder; raises `ConfigurationError` if that fails, or if a required file is missing."""
    if must_exist and not path.exists():
        raise ConfigurationError(
            f"no journal at {str(path)!r}: no run was recorded there yet; "
            "start one with `flowkit run APP`, or name another journal with --journal or FLOWKIT_JOURNAL"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the journal {str(path)!r} can't be made: {error.strerror}; FLOWKIT_JOURNAL names another file"
        ) from error
