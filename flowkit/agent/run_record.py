"""A run's journal as its rounds use it; where there is none, nothing is remembered.

A model's calls are recorded without the secrets that it wrote into them, and those are kept apart.
A resumed run sends its model that model's own words, unchanged, and calls tools with them. So the journal keeps the
arguments of such calls beside the message that it shows, and only as long as the run may be resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from flowkit.agent.plan import Given
from flowkit.agent.requesting import TurnTools
from flowkit.codec import JSON, dumps, loads
from flowkit.events import EventLog, RunStatus
from flowkit.journal import RecordedTurn, RunJournal
from flowkit.known_secrets import KnownSecrets
from flowkit.masking import MASK, show_arguments
from flowkit.messages import AssistantMessage, Message, RequestedCall, Usage, message_from_json
from flowkit.runs.costs import Cost, cost_from_json
from flowkit.tools.toolsets import Toolset


def hide_secrets(message: Message, tools: Toolset, known: KnownSecrets) -> tuple[Message, dict[str, str]]:
    """Return the message as others may see it, and the hidden arguments by call id."""
    if not isinstance(message, AssistantMessage) or not message.calls:
        return message, {}
    for call in message.calls:
        known.learn(_find(call, tools))
    calls = tuple(_hide(call, tools, known) for call in message.calls)
    kept = {call.id: call.arguments for call, shown in zip(message.calls, calls, strict=True) if shown is not call}
    return (replace(message, calls=calls), kept) if kept else (message, kept)


def restore_secrets(message: AssistantMessage, kept: Mapping[str, str]) -> AssistantMessage:
    """Restore the message as the model wrote it."""
    if not kept:
        return message
    calls = tuple(replace(call, arguments=kept.get(call.id, call.arguments)) for call in message.calls)
    return replace(message, calls=calls)


def hide_history(history: Sequence[Message], tools: Toolset) -> tuple[tuple[Message, ...], dict[str, str]]:
    """Hide the secrets of a conversation; arguments are identified by the message's position and the call's id."""
    shown: list[Message] = []
    kept: dict[str, str] = {}
    known = KnownSecrets()
    for place, message in enumerate(history):
        hidden, arguments = hide_secrets(message, tools, known)
        shown.append(hidden)
        kept |= {f"{place}/{call}": text for call, text in arguments.items()}
    return tuple(shown), kept


def hide_inputs(given: Given, tools: Toolset) -> tuple[JSON, dict[str, str]]:
    """Return a run's inputs as the journal shows them, and the arguments of earlier calls that it keeps apart."""
    shown, kept = hide_history(given.history, tools)
    return replace(given, history=shown).to_json(), kept


def restore_history(history: Sequence[Message], kept: Mapping[str, str]) -> tuple[Message, ...]:
    """Restore the original conversation."""
    if not kept:
        return tuple(history)
    return tuple(
        restore_secrets(message, {call.id: kept.get(f"{place}/{call.id}", call.arguments) for call in message.calls})
        if isinstance(message, AssistantMessage)
        else message
        for place, message in enumerate(history)
    )


def _hide(call: RequestedCall, tools: Toolset, known: KnownSecrets) -> RequestedCall:
    tool = tools.resolve(call.name)
    is_unknown = tool is None and any(other.secrets for other in tools)
    if not is_unknown and (tool is None or not tool.secrets):
        return _hide_known(call, known) if known else call
    arguments = _read(call)
    if arguments is None:
        return replace(call, arguments="{}")
    if tool is None:
        return replace(call, arguments=dumps(dict.fromkeys(arguments, MASK)).decode())
    shown = known.mask(show_arguments(tools.raise_arguments(tool.name, arguments), tool.secrets))
    return replace(call, arguments=dumps(shown).decode())


def _hide_known(call: RequestedCall, known: KnownSecrets) -> RequestedCall:
    """Hide what other calls of the run keep secret."""
    arguments = _read(call)
    if arguments is None:
        text = known.mask_text(call.arguments)
        return call if text == call.arguments else replace(call, arguments="{}")
    shown = known.mask(arguments)
    return call if shown == arguments else replace(call, arguments=dumps(shown).decode())


def _find(call: RequestedCall, tools: Toolset) -> frozenset[str]:
    """Find the secrets that the call's tool declares."""
    tool, arguments = tools.resolve(call.name), _read(call)
    if tool is None or not tool.secrets or arguments is None:
        return frozenset()
    return tool.secrets.find(tools.raise_arguments(tool.name, arguments))


def _read(call: RequestedCall) -> dict[str, JSON] | None:
    try:
        arguments = loads(call.arguments)
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn of an earlier process; `nodes` are the graph's ids of the message's calls, in their order.

    `spent` and `cost_usd` cover the whole run up to here, with broken attempts and agents that tools have called.
    """

    turn: int
    message: AssistantMessage
    nodes: tuple[str, ...]
    reason: str
    spent: Usage
    cost_usd: float | None
    costs: tuple[Cost, ...] = ()


class RunRecord:
    """The record of a run's turns: written before their effects start, and restored from an earlier process."""

    def __init__(self, journal: RunJournal | None, log: EventLog) -> None:
        self.journal = journal
        self.past = (
            ()
            if journal is None
            else tuple(_read_turn(turn, journal.kept.get(turn.turn, {})) for turn in journal.turns)
        )
        """The turns of earlier processes, in order."""
        self._latest = self.past[-1] if self.past else None
        self.tools: TurnTools | None = None
        """The tools of the run, which define the secrets in its calls."""
        self.known = KnownSecrets()
        """The secrets of the run so far."""
        self._turn = 0
        self._prefixes: list[str] = []
        """Those of this turn's attempts."""
        if journal is not None:
            log.first_seq = journal.first_seq
            if not journal.is_inner:  # the enclosing run reports them, too
                journal.follow(log)

    async def has_doubt(self, turn: int) -> bool:
        """Return whether earlier processes left a call in doubt; not before their last turn, where a probe may settle it."""
        is_restored = bool(self.past) and turn == self.past[-1].turn
        return is_restored and self.journal is not None and await self.journal.has_doubt()

    def prefix(self, turn: int, attempt: int) -> str:
        """Return an id prefix for an attempt's calls that no other call in the journal and no other attempt has.

        A process that was killed in the middle of a turn may have left reads of it, of calls that the model's next
        answer need not repeat.
        """
        known = () if self.journal is None else tuple(self.journal.nodes)
        if turn != self._turn:
            self._turn, self._prefixes = turn, []
        free = 0
        while True:
            prefix = f"turn/{turn}" if free + attempt == 1 else f"turn/{turn}/attempt/{free + attempt}"
            if prefix not in self._prefixes and not any(node.startswith(f"{prefix}/call/") for node in known):
                self._prefixes.append(prefix)
                return prefix
            free += 1

    async def write_turn(self, turn: PastTurn) -> None:
        """Write a turn down, soon; its calls may start after this, since a claim of theirs takes it along."""
        if self.journal is not None:
            self._latest = turn
            await self._write(turn)

    async def write_spent(self, spent: Usage, cost_usd: float | None, costs: tuple[Cost, ...]) -> None:
        """Add to the last turn the usage after it was recorded: by its tools, or by attempts at the next turn."""
        if self._latest is not None and self._latest.spent != spent:
            self._latest = replace(self._latest, spent=spent, cost_usd=cost_usd, costs=costs)
            await self._write(self._latest)

    async def _write(self, turn: PastTurn) -> None:
        if self.journal is not None:
            shown, kept = (
                (turn.message, {}) if self.tools is None else hide_secrets(turn.message, self.tools.now, self.known)
            )
            data: dict[str, JSON] = {
                "message": shown.to_json(),
                "nodes": list(turn.nodes),
                "reason": turn.reason,
                "spent": turn.spent.to_json(),
                "cost_usd": turn.cost_usd,
                "costs": [cost.to_json() for cost in turn.costs],
            }
            await self.journal.wait_turn()  # a run is never more than one turn ahead of its journal
            self.journal.post_turn(turn.turn, data, kept=kept)

    async def finish(self, status: RunStatus, output: JSON, error: str | None, messages: Sequence[Message]) -> None:
        """Record how the run finished and release it."""
        if self.journal is not None:
            shown = [
                message if self.tools is None else hide_secrets(message, self.tools.now, self.known)[0]
                for message in messages
            ]
            await self.journal.finish(status, output, error, [message.to_json() for message in shown])

    async def close(self) -> None:
        """Release a run that could not start, without recording an end."""
        if self.journal is not None:
            await self.journal.close()


def _read_turn(recorded: RecordedTurn, kept: Mapping[str, str]) -> PastTurn:
    fields = cast(Mapping[str, JSON], recorded.message)
    message = message_from_json(cast(Mapping[str, JSON], fields["message"]))
    assert isinstance(message, AssistantMessage)
    nodes = tuple(cast(Sequence[str], fields["nodes"]))
    # A journal of version 1 has only the turn's own usage, and no cost.
    spent = Usage.from_json(cast(Mapping[str, JSON], fields["spent"] if "spent" in fields else fields["usage"]))
    cost_usd = cast(float | None, fields.get("cost_usd"))
    message = restore_secrets(message, kept)
    costs = tuple(cost_from_json(cost, None) for cost in cast("Sequence[JSON]", fields.get("costs", [])))
    return PastTurn(recorded.turn, message, nodes, str(fields["reason"]), spent, cost_usd, costs)
