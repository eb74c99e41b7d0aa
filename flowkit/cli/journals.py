"""The journal that a command uses."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from flowkit.errors import ConfigurationError
from flowkit.journal import Journal, RunDetails, default_journal_path


@contextmanager
def open_journal(path: Path | None, *, must_exist: bool = False) -> Generator[Journal]:
    """Open the journal at `path`, or the default one; raises `ConfigurationError` if it must exist and doesn't."""
    path = path or default_journal_path()
    if must_exist and not path.exists():
        raise ConfigurationError(f"no journal at {str(path)!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the journal {str(path)!r} can't be made: {error.strerror}; FLOWKIT_JOURNAL names another file"
        ) from error
    journal = Journal(path)
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def open_chosen_journal(path: Path | None, *, wanted: bool) -> Generator[Journal | None]:
    """Open a journal if one is named or wanted, else yield None."""
    if path is None and not wanted:
        yield None
        return
    with open_journal(path) as journal:
        yield journal


def find_run(journal: Journal, run_id: str) -> RunDetails:
    """Find a run; raises `ConfigurationError` if there is none."""
    found = journal.show(run_id)
    if found is None:
        raise ConfigurationError(f"no run {run_id!r} in {str(journal.path)!r}")
    return found
