"""Changes of many runs, written together where possible.

An invalid change must not become an error of other runs. So a transaction that the server rejects for its data is
repeated with each change separately, and so is one that waits for a run during a takeover.
"""

from collections.abc import Sequence

import psycopg

from flowkit.errors import FlowkitError, StoreError
from flowkit.journal.postgres.link import Rows
from flowkit.journal.postgres.session import Session, Text, may_pass
from flowkit.journal.postgres.settling import explain_refused
from flowkit.journal.postgres.texts import Times
from flowkit.journal.postgres.writing import Batch, begin
from flowkit.journal.store import Changes

BATCH_BYTES = 16 * 2**20
"""How much goes into one transaction."""


class Applier:
    """Writes changes through the writer's connection."""

    def __init__(self, session: Session, times: Times) -> None:
        self._writing = session
        self._times = times

    def apply(self, batch: Sequence[Changes], *, durable: bool) -> list[FlowkitError | None]:
        """Write them in their order; returns the error of each."""
        errors: list[FlowkitError | None] = [None] * len(batch)
        together, indexes = Batch(self._times), list[int]()
        for index, changes in enumerate(batch):
            if not together.takes(changes) or together.size > BATCH_BYTES:
                self._apply_together(batch, together, indexes, errors, durable=durable)
                together, indexes = Batch(self._times), []
            try:
                together.add(changes)
                indexes.append(index)
            except StoreError as error:
                errors[index] = error
        self._apply_together(batch, together, indexes, errors, durable=durable)
        return errors

    def _apply_together(
        self,
        batch: Sequence[Changes],
        together: Batch,
        indexes: Sequence[int],
        errors: list[FlowkitError | None],
        *,
        durable: bool,
    ) -> None:
        """Write a transaction, and note the errors of the changes in it; one that is refused for its data, each alone."""
        if not indexes:
            return

        def make(is_prepared: bool) -> str:
            return f"{begin(durable=durable)}; {together.to_text(is_prepared=is_prepared)}; COMMIT"

        is_alone = len(indexes) == 1
        try:
            if is_alone:
                rows = self._writing.attempt(lambda _: self._writing.write(make, durable=durable))
            else:
                rows = self._writing.attempt(lambda _: self._write_or_split(make, durable=durable))
        except StoreError as error:
            for index in indexes:
                errors[index] = error
            return
        if rows is None:
            for index in indexes:
                one = Batch(self._times)
                one.add(batch[index])
                self._apply_together(batch, one, [index], errors, durable=durable)
            return
        ours: dict[int, str] = dict(rows[0])
        for index in indexes:
            changes = batch[index]
            if ours.get(changes.run) != changes.token:
                errors[index] = explain_refused(changes.run_id)

    def _write_or_split(self, make: Text, *, durable: bool) -> list[Rows] | None:
        """Write a transaction of several changes; None where a part of it is refused, or waits for another process."""
        try:
            return self._writing.write(make, durable=durable)
        except psycopg.errors.LockNotAvailable:
            return None
        except psycopg.Error as error:
            if may_pass(error) or error.sqlstate is None:
                raise
            return None
