"""A run's journal as its rounds use it; where there is none, nothing is remembered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flowkit.codec import JSON
from flowkit.events import EventLog, RunStatus
from flowkit.journal import RecordedTurn, RunJournal
from flowkit.messages import AssistantMessage, Message, Usage, message_from_json


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn that an earlier process had; `nodes` are the graph's ids of the message's calls, in their order."""

    turn: int
    message: AssistantMessage
    nodes: tuple[str, ...]
    usage: Usage
    reason: str


class RunRecord:
    """Writes turns down before their effects start, and gives back those of an earlier process."""

    def __init__(self, journal: RunJournal | None, log: EventLog) -> None:
        self.journal = journal
        self._prefixes = set[str]()
        if journal is not None:
            log.first_seq = journal.first_seq
            log.listen(journal.append_event)

    @property
    def turns(self) -> list[PastTurn]:
        """The turns so far, in order."""
        return [] if self.journal is None else [_read_turn(turn) for turn in self.journal.turns]

    def prefix(self, turn: int, attempt: int) -> str:
        """The beginning of the ids of an attempt's calls, one that no call in the journal and no other attempt has.

        A process that was killed in the middle of a turn may have left reads of it, of calls that the model's next
        answer need not repeat.
        """
        known = () if self.journal is None else tuple(self.journal.nodes)
        free = 0
        while True:
            prefix = f"turn/{turn}" if free + attempt == 1 else f"turn/{turn}/attempt/{free + attempt}"
            if prefix not in self._prefixes and not any(node.startswith(f"{prefix}/call/") for node in known):
                self._prefixes.add(prefix)
                return prefix
            free += 1

    async def write_turn(self, past: PastTurn) -> None:
        """Write a turn down; its calls may start after this."""
        if self.journal is not None:
            data: dict[str, JSON] = {
                "message": past.message.to_json(),
                "nodes": list(past.nodes),
                "usage": past.usage.to_json(),
                "reason": past.reason,
            }
            await self.journal.record_turn(past.turn, data)

    async def finish(self, status: RunStatus, output: JSON, error: str | None, messages: Sequence[Message]) -> None:
        """Write down how it ended, and let go of it."""
        if self.journal is not None:
            await self.journal.finish(status, output, error, [message.to_json() for message in messages])


def _read_turn(recorded: RecordedTurn) -> PastTurn:
    fields = cast(Mapping[str, JSON], recorded.message)
    message = message_from_json(cast(Mapping[str, JSON], fields["message"]))
    assert isinstance(message, AssistantMessage)
    usage = cast(Mapping[str, int], fields["usage"])
    nodes = tuple(cast(Sequence[str], fields["nodes"]))
    return PastTurn(recorded.turn, message, nodes, Usage(**usage), str(fields["reason"]))
