"""The calls of one turn, from when a model has asked for them until their results are messages.

The references that a model writes are read at the seal, once, on the arguments as they were parsed.
A reference is the whole value of a top-level argument, an object with `from_call` and, perhaps, `path` (RFC 6901),
and no other key. `{"literal": …}` stands for a value that only looks like one. The labels are implied: the name of the
call's tool as the model sees it, then `name_2`, `name_3` for later calls of it in the same turn.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeGuard, cast

from flowkit.agent.tool_messages import carry, make_tool_message
from flowkit.codec import JSON, dumps, loads
from flowkit.errors import FlowkitError, GraphError, ResolutionError, RunError, ToolArgumentsError
from flowkit.executor import Decision, Executor, Outcome
from flowkit.history import NOT_RUN, mend
from flowkit.messages import AssistantMessage, Message, RequestedCall
from flowkit.references import Reference, lookup, parse_pointer
from flowkit.runs.results import Pending
from flowkit.tools.long_results import LongResults
from flowkit.tools.toolsets import Toolset


def link(tool: str, label: str, arguments: Mapping[str, JSON], earlier: Mapping[str, str]) -> dict[str, Reference]:
    """Return the arguments that are references, by name; `label` is the call's own, `earlier` maps labels to calls.

    Raises `ToolArgumentsError` for an unknown label, a call that refers to itself or to a later one, and a pointer
    that isn't one. Whether the result can have such a path is checked where the graph takes the call.
    """
    references: dict[str, Reference] = {}
    problems: list[str] = []
    for name, value in arguments.items():
        if not _is_reference(value):
            continue
        source, pointer = value["from_call"], value.get("path", "")
        found = earlier.get(source) if isinstance(source, str) else None
        if found is None:
            what = "this call itself" if source == label else f"no earlier call {source!r}"
            problems.append(f"{name!r} refers to {what}; there is {', '.join(map(repr, earlier)) or 'none'}")
            continue
        try:
            path = parse_pointer(pointer if isinstance(pointer, str) else str(pointer))
        except GraphError as error:
            problems.append(f"{name!r}: {error}")
            continue
        references[name] = Reference(found, path)
    if problems:
        raise ToolArgumentsError(tool, problems)
    return references


def unwrap_literal(value: JSON) -> JSON:
    """Return the value that `{"literal": …}` stands for; any other value as it is."""
    return value["literal"] if _is_literal(value) else value


def wrap_literal(value: JSON) -> JSON:
    """Wrap the value if needed, so that `unwrap_literal` returns it and `link` takes it for no reference.

    >>> wrap_literal(5), wrap_literal({"from_call": "get_order"})
    (5, {'literal': {'from_call': 'get_order'}})
    """
    return {"literal": value} if _is_reference(value) or _is_literal(value) else value


def _is_reference(value: JSON) -> TypeGuard[dict[str, JSON]]:
    return isinstance(value, dict) and "from_call" in value and value.keys() <= {"from_call", "path"}


def _is_literal(value: JSON) -> TypeGuard[dict[str, JSON]]:
    return isinstance(value, dict) and value.keys() == {"literal"}


class OpenCalls:
    """The open calls of a turn, by the ids that they have in the graph.

    `pending` are the calls that a person has to decide on; they stay open, and all others have their results. With
    `keeps_ids`, as with a journal, a call has the same id when the run is resumed. Without it the history is the only
    record, and a call is identified by its position in the message.
    """

    def __init__(
        self, graph: Executor, decisions: Mapping[str, Decision], long: LongResults, *, keeps_ids: bool = False
    ) -> None:
        self.pending: tuple[Pending, ...] = ()
        self._graph = graph
        self._keeps_ids = keeps_ids
        self._keys: dict[str, str] = {}
        self._decisions = decisions
        self._used: list[str] = []
        """The keys of the decisions that were applied."""
        self._is_first = True
        """No decision was applied before these calls, so every given decision is for one of them."""
        self._refused: dict[str, ToolArgumentsError] = {}
        """Decisions with arguments that their tool doesn't take; their calls still wait."""
        self._long = long
        self._open: dict[str, RequestedCall] = {}
        self._undecided: tuple[str, ...] = ()

    def open(self, calls: Mapping[str, RequestedCall], message: AssistantMessage, turn: int) -> None:
        """Wait for these calls of the message, by node; `turn` counts the messages of the model so far."""
        self._open = dict(calls)
        self._is_first = not self._used
        places = {call.id: place for place, call in enumerate(message.calls)}
        # The name of a call when the run is resumed from its history, regardless of the attempt that made it.
        named = {node: f"turn/{turn}/call/{places[call.id]}" for node, call in calls.items()}
        self._keys = {} if self._keeps_ids else named

    async def wait_ended(self) -> None:
        """Wait until each call has finished or waits for a decision that is still missing."""
        await self._graph.wait(*self._open)
        while decided := self._decided():
            for node, decision in decided.items():
                try:
                    self._graph.decide(node, decision)
                except ToolArgumentsError as refused:
                    self._refused[node] = refused
            await self._graph.wait(*self._open)
        self._undecided = tuple(node for node in self._open if self._graph.outcome(node) is None)
        if self._undecided:
            self.pending = tuple(self.find_waiting().values())

    def explain_wait(self) -> FlowkitError | None:
        """Explain what is wrong with the given decisions if calls still wait."""
        if self._refused:
            return next(iter(self._refused.values()))
        # One that was applied in an earlier process has an outcome by now.
        unknown = [key for key in self._decisions if key not in self._used and self._graph.outcome(key) is None]
        if not unknown or not self._is_first:
            return None
        waiting = ", ".join(repr(call.id) for call in self.pending)
        return RunError(f"no call {unknown[0]!r} waits for a decision, only: {waiting}")

    def find_finished(self, name: str) -> Outcome | None:
        """Find the first open call of this tool that has a result and return its outcome; None once all are settled."""
        outcomes = [self._graph.outcome(node) for node, requested in self._open.items() if requested.name == name]
        return next((outcome for outcome in outcomes if outcome is not None and outcome.state == "finished"), None)

    def find_waiting(self) -> dict[str, Pending]:
        """Find the calls that wait now, by their ids in the graph."""
        return {call.id: Pending(self._key(call.id), call.name, call.arguments) for call in self._graph.pending}

    def settle(self, messages: Sequence[Message], tools: Toolset) -> list[Message]:
        """Return the messages with the available results, in the order of the calls."""
        if not self._open:
            return list(messages)
        settled = list(messages)
        for node, requested in self._open.items():
            outcome = self._graph.outcome(node)
            # A run that waits for a person stops its graph, and how its undecided calls ended by that is no result;
            # only of a write that was stopped in the middle nobody knows whether it happened.
            if outcome is not None and (node not in self._undecided or outcome.state == "in_doubt"):
                settled.append(make_tool_message(requested, outcome, tools.get(requested.name), self._long))
        settled = self._keep(settled, tools) if self.pending else list(mend(settled, missing=NOT_RUN))
        self._open = {}
        if not self.pending:
            self._keys = {}
        return settled

    def _decided(self) -> dict[str, Decision]:
        """Return the decisions on what waits now, by node; a decision may also name the message's call."""
        decided: dict[str, Decision] = {}
        for call in self._graph.pending:
            requested = self._open.get(call.id)
            keys = (self._key(call.id), "" if requested is None else requested.id)
            key = next((key for key in keys if key in self._decisions), None)
            if key is not None and call.id not in self._refused:
                self._used.append(key)
                decided[call.id] = self._decisions[key]
        return decided

    def _key(self, node: str) -> str:
        """Return the key by which decisions name this call; calls that an open call needs or makes are below it."""
        for opened, key in self._keys.items():
            if node == opened or node.startswith(f"{opened}/"):
                return key + node[len(opened) :]
        return node

    def _keep(self, messages: Sequence[Message], tools: Toolset) -> list[Message]:
        """Add finished outcomes to the messages of waiting calls: a resumed run may have only these messages."""
        resolved = {self._open[node].id: self._arguments(node, tools) for node in self._undecided}
        ended = {
            self._key(node): outcome
            for node, outcome in self._graph.outcomes.items()
            if outcome.state in ("finished", "failed") and self._is_below(node)
        }
        question = secrets.token_hex(8)
        return [
            carry(_with_arguments(message, resolved), ended, question)
            if isinstance(message, AssistantMessage) and any(call.id in resolved for call in message.calls)
            else message
            for message in messages
        ]

    def _is_below(self, node: str) -> bool:
        """Return whether a waiting call needed or made this one."""
        return any(node.startswith(f"{undecided}/") for undecided in self._undecided)

    def _arguments(self, node: str, tools: Toolset) -> str:
        """Return the call's arguments as its model wrote them, with values for references to finished calls."""
        requested = self._open[node]
        values: dict[str, JSON] = {}
        for name, reference in self._graph.references(node).items():
            producer = self._graph.outcome(reference.call_id)
            if producer is None or producer.state != "finished":
                continue
            with suppress(ResolutionError):  # then it stays, and the call fails when it continues
                value = lookup(producer.value, reference.path, producer.call.name)
                values[name] = wrap_literal(tools.lower_arguments(requested.name, {name: value})[name])
        if not values:
            return requested.arguments
        return dumps(cast(dict[str, JSON], loads(requested.arguments)) | values).decode()


def _with_arguments(message: AssistantMessage, arguments: Mapping[str, str]) -> AssistantMessage:
    calls = tuple(replace(call, arguments=arguments.get(call.id, call.arguments)) for call in message.calls)
    return replace(message, calls=calls)
