"""Runs that survive the process that drives them.

A node is recorded under its run's id and its own id. Ids are names, not positions, because nodes finish in another
order each time. See `journal.journal` for the journal and `journal.run` for one run.
"""

from flowkit.journal.journal import Journal, migrate
from flowkit.journal.location import check_address, default_journal, default_journal_path, is_url
from flowkit.journal.records import (
    Approval,
    Decision,
    Done,
    Fail,
    JournalStats,
    Recorded,
    RecordedTurn,
    Resolution,
    Retry,
    RunDetails,
    RunState,
    RunSummary,
)
from flowkit.journal.run import RunJournal

__all__ = [
    "Approval",
    "Decision",
    "Done",
    "Fail",
    "Journal",
    "JournalStats",
    "Recorded",
    "RecordedTurn",
    "Resolution",
    "Retry",
    "RunDetails",
    "RunJournal",
    "RunState",
    "RunSummary",
    "check_address",
    "default_journal",
    "default_journal_path",
    "is_url",
    "migrate",
]
