"""One attempt at a turn: the model's stream is read while the calls in it already run.

The model's text is shown as it arrives. A `read` starts as soon as its arguments look complete. Every other call is
held until the turn is complete and its message is in the journal; then `release` starts it. A broken attempt is
dropped: its calls are void, and the results of its reads are kept for the next attempt.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never, cast

from flowkit import events
from flowkit.agent.growing.answers import PartialAnswer
from flowkit.agent.open_calls import link, unwrap_literal
from flowkit.agent.plan import AgentPlan
from flowkit.agent.tool_messages import make_message, seal_again
from flowkit.assemble import Assembler, CallFragment, CallOpened, CallReady, CallVoided, Part, SealedCall, Turn
from flowkit.codec import JSON
from flowkit.errors import ModelError, StreamError, ToolArgumentsError
from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.known_secrets import MaskedStream
from flowkit.masking import MASK
from flowkit.messages import AssistantMessage, RequestedCall, Usage
from flowkit.models.base import Delta, RefusalDelta, TextDelta, ThinkingDelta, UsageDelta
from flowkit.references import ToolCall
from flowkit.suggestions import suggest
from flowkit.tools import Tool
from flowkit.tools.schema.aliases import make_alias
from flowkit.tools.toolsets import Toolset, takes_references

AnyTool = Tool[..., Any]
logger = logging.getLogger("flowkit.agent")


@dataclass(slots=True)
class _Call:
    """A call of this attempt, from its first fragment on; `held` until the turn is complete."""

    node: str
    name: str
    tool: AnyTool | None
    label: str
    sealed: SealedCall | None = None
    held: ToolCall | None = None
    ready_s: float | None = None
    stream: MaskedStream | None = None


@dataclass(frozen=True, slots=True)
class FinishedAttempt:
    """The result of an attempt; `nodes` are the graph's ids of the message's calls, in their order."""

    message: AssistantMessage
    nodes: tuple[str, ...]
    turn: Turn
    ready_s: Mapping[str, float]

    @property
    def error(self) -> ModelError | None:
        """The error that broke it off; an empty answer counts as one."""
        return self.turn.error or self._find_silence()

    @property
    def usage(self) -> Usage:
        return self.turn.usage or Usage()

    def _find_silence(self) -> ModelError | None:
        """Return an error for an answer without text or call: a mistake of servers that a retry usually avoids.

        Thinking alone counts as empty. A truncated answer has its own error.
        """
        message = self.message
        if self.turn.reason in ("length", "content_filter") or message.calls:
            return None
        if any(call.state == "void" for call in self.turn.calls):
            return StreamError("the answer was cut off inside a tool call", retryable=True)
        if message.text.strip() or message.refusal.strip():
            return None
        return ModelError(
            "the model said nothing: its turn has neither text nor a call", retryable=True, retry_after_s=0
        )


class Attempt:
    """Turns one answer's deltas into text events, and into calls of the graph."""

    def __init__(
        self,
        plan: AgentPlan[Any],
        executor: Executor,
        log: EventLog,
        tools: Toolset,
        *,
        turn: int,
        prefix: str,
        taken: Collection[str],
        calls_left: int | None,
    ) -> None:
        """Prepare an attempt.

        `prefix` is the start of its calls' ids in the graph; `taken` are ids that the model has already used.
        """
        self._source = plan.model.source
        self._early = plan.early
        self._references = plan.references
        self._executor = executor
        self._log = log
        self._tools = tools
        self._turn = turn
        self._prefix = prefix
        self._calls_left = calls_left
        self._assembler = Assembler(known_names=tools.aliases, taken=taken, think_tags=plan.think_tags)
        self._calls: dict[int, _Call] = {}
        self._hides_unknown = any(tool.secrets for tool in tools)
        """Whether a call of a tool that isn't there may hold a secret meant for one that is."""
        self._text_length = 0
        self._thinking_length = 0
        self._output = plan.output
        self._texts: list[str] = []
        is_typed = plan.output.shape is not None and plan.output.tool is None
        self.partial = self._open_partial() if is_typed else None
        """The answer so far; None for one that is text, and until an output tool is called."""

    def feed(self, delta: Delta) -> None:
        """Take the deltas that arrived, and start the calls that may start."""
        for part in self._assembler.feed(delta):
            self._take(part)

    @property
    def text_length(self) -> int:
        """The length of the text so far."""
        return self._text_length

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def restore(
        self, calls: Sequence[RequestedCall], nodes: Sequence[str], missing: Collection[str]
    ) -> dict[str, RequestedCall]:
        """Restart the calls of a message that have no result yet, by their ids; return them by node.

        The turn is over, so nothing is held.
        """
        opened: dict[str, RequestedCall] = {}
        for index, (requested, node) in enumerate(zip(calls, nodes, strict=True)):
            call = self._add(index, requested.name, node)
            if requested.id in missing:
                self._executor.announce(node, call.name)
                self._seal(call, seal_again(requested, index))
                opened[node] = requested
        self.release()
        return opened

    def end(self, error: ModelError | None = None) -> FinishedAttempt:
        """Complete the body, or interrupt it with `error`; held calls don't start yet."""
        for part in self._assembler.end(error):
            self._take(part)
        if self.partial is not None:
            self.partial.tell()
        turn = self._assembler.turn
        if turn.leaked is not None and self._tools.aliases:
            logger.warning(
                "the answer of %r holds %r: its server doesn't know how the model writes calls; "
                "OpenAIModel(..., text_calls=True) reads them from the text",
                self._source,
                turn.leaked,
            )
        if turn.ignored_choices:
            logger.warning(
                "%r gave %d answers, and all but the first are ignored: leave 'n' out of extra_body=",
                self._source,
                turn.ignored_choices + 1,
            )
        kept = [call for _, call in sorted(self._calls.items()) if call.sealed is not None]
        return FinishedAttempt(
            message=make_message(turn, [(call.name, call.sealed) for call in kept if call.sealed], self._source),
            nodes=tuple(call.node for call in kept),
            turn=turn,
            ready_s={call.node: call.ready_s for call in kept if call.ready_s is not None},
        )

    def release(self) -> None:
        """Start the held calls, in their order; calls made by the others may write from now on."""
        for call in self._calls.values():
            if call.sealed is not None:
                self._executor.confirm(call.node)
        for _, call in sorted(self._calls.items()):
            if call.held is not None:
                self._executor.seal(call.held)
                call.held = None

    def drop(self, reason: str) -> list[str]:
        """Void this attempt's unsealed calls; return the sealed ones that stay in flight, for a next attempt."""
        going = [call.node for call in self._calls.values() if self._executor.outcome(call.node) is None]
        for node in going:
            self._executor.void(node, reason)
            self._executor.disown(node)
        return [node for node in going if self._executor.outcome(node) is None]

    def withdraw(self, reason: str) -> list[str]:
        """Void all of its calls, also those that wait for `release`; return those still in flight, to be cancelled."""
        for call in self._calls.values():
            call.held = None
        return self.drop(reason)

    def _take(self, part: Part) -> None:
        match part:
            case TextDelta(text=text) | RefusalDelta(text=text):
                self._log.note(events.TextDelta, text, self._turn, None, self._text_length)
                self._text_length += len(text)
                self._texts.append(text)
                if self.partial is not None and self._output.tool is None:
                    self.partial.feed(text)
            case ThinkingDelta(text=text):
                self._log.note(events.ThinkingDelta, text, self._turn, None, self._thinking_length)
                self._thinking_length += len(text)
            case UsageDelta():
                pass
            case CallOpened(index=index, name=name):
                call = self._add(index, name, f"{self._prefix}/call/{index}")
                self._executor.announce(call.node, call.name)
                if call.tool is not None and call.tool is self._output.tool and self._output.shape is not None:
                    self.partial = self._open_partial(call.node)
            case CallFragment(index=index, fragment=fragment):
                call = self._calls[index]
                if self.partial is not None and self.partial.call == call.node:
                    self.partial.feed(fragment)
                # A fragment of a secret looks like any other: the sealed call shows them, masked.
                if not (call.tool.secrets if call.tool is not None else self._hides_unknown):
                    self._stream(call, fragment)
            case CallReady(index=index, arguments=arguments):
                self._begin(self._calls[index], arguments)
            case SealedCall(index=index):
                self._seal(self._calls[index], part)
            case CallVoided(index=index, reason=reason):
                self._executor.void(self._calls.pop(index).node, reason)
            case _:
                assert_never(part)

    def _add(self, index: int, wire_name: str, node: str) -> _Call:
        tool = self._tools.resolve(wire_name)
        name = wire_name if tool is None else tool.name
        alias = make_alias(name)
        count = sum(call.name == name for call in self._calls.values()) + 1
        label = alias if count == 1 else f"{alias}_{count}"
        call = self._calls[index] = _Call(node, name, tool, label)
        return call

    def _stream(self, call: _Call, fragment: str) -> None:
        """Report a piece of the arguments, without the secrets that the run knows."""
        if call.stream is None and self._executor.known_secrets:
            call.stream = MaskedStream(self._executor.known_secrets)
        shown = fragment if call.stream is None else call.stream.feed(fragment)
        if shown:
            self._log.note(events.CallArguments, call.node, shown)

    def _learn(self, call: _Call, arguments: Mapping[str, JSON]) -> None:
        """Learn its secrets now, and not when it starts: later calls of this turn may repeat them."""
        if call.tool is not None and call.tool.secrets:
            raised = self._tools.raise_arguments(call.tool.name, arguments)
            self._executor.known_secrets.learn(call.tool.secrets.find(raised))

    def _begin(self, call: _Call, arguments: Mapping[str, JSON]) -> None:
        """Handle the soft signal: only a read starts on it, and only if no earlier write could affect it."""
        call.ready_s = self._executor.now()
        self._learn(call, arguments)
        if self._early and call.tool is not None and not self._must_hold(call):
            raised = self._tools.raise_arguments(call.tool.name, arguments)
            self._executor.start_early(ToolCall(call.node, call.tool.name, raised))

    def _open_partial(self, call: str | None = None) -> PartialAnswer:
        shape = self._output.shape
        assert shape is not None
        return PartialAnswer(shape, self._log, self._turn, call=call, is_wrapped=self._output.wrapped)

    def _seal(self, call: _Call, sealed: SealedCall) -> None:
        call.sealed = sealed
        if call.stream is not None and (rest := call.stream.end()):
            self._log.note(events.CallArguments, call.node, rest)
        if self.partial is not None and self.partial.call == call.node and sealed.arguments is not None:
            self.partial.finish(cast(JSON, self._tools.raise_arguments(call.name, sealed.arguments)))
        if call.ready_s is None:
            call.ready_s = self._executor.now()
        made = ToolCall(call.node, call.name, sealed.arguments or {})
        self._learn(call, sealed.arguments or {})
        if call.tool is None:
            if self._hides_unknown:
                made = ToolCall(call.node, call.name, dict.fromkeys(made.arguments, MASK))
            self._executor.fail(made, f"there is no tool {call.name!r}; {suggest(call.name, self._tools.aliases)}")
        elif sealed.arguments is None:
            self._executor.fail(made, f"not run: {sealed.error or 'its arguments are not a JSON object'}")
        elif self._calls_left is not None and self._sealed_count() > self._calls_left:
            self._executor.fail(made, "not run: this run's limit on calls is reached")
        else:
            self._place(call, call.tool, sealed.arguments)

    def _place(self, call: _Call, tool: AnyTool, arguments: Mapping[str, JSON]) -> None:
        made = ToolCall(call.node, tool.name, self._tools.raise_arguments(tool.name, arguments))
        if self._references and takes_references(tool):
            try:
                made = ToolCall(call.node, tool.name, self._linked(call, tool, arguments))
            except ToolArgumentsError as error:
                self._executor.fail(made, str(error))
                return
        if self._early and tool.effect == "read" and not tool.approval and not self._must_hold(call):
            self._executor.seal(made, is_provisional=True)
        else:
            call.held = made

    def _linked(self, call: _Call, tool: AnyTool, arguments: Mapping[str, JSON]) -> dict[str, object]:
        """Replace the model's references in the arguments by `Reference` values; only earlier calls have names."""
        earlier = {other.label: other.node for other in self._before(call)}
        references = link(tool.name, call.label, arguments, earlier)
        plain = {name: unwrap_literal(value) for name, value in arguments.items() if name not in references}
        raised = self._tools.raise_arguments(tool.name, plain)
        return {**raised, **references}

    def _must_hold(self, call: _Call) -> bool:
        """Return whether an earlier call of this turn may write a resource that this one reads: it must not overtake that call."""
        families = _families(call.tool)
        return bool(families) and any(
            other.tool is not None and other.tool.effect != "read" and not families.isdisjoint(_families(other.tool))
            for other in self._before(call)
        )

    def _before(self, call: _Call) -> list[_Call]:
        earlier: list[_Call] = []
        for _, other in sorted(self._calls.items()):
            if other is call:
                break
            earlier.append(other)
        return earlier

    def _sealed_count(self) -> int:
        return sum(call.sealed is not None for call in self._calls.values())


def _families(tool: AnyTool | None) -> frozenset[str]:
    """Collect the resource families that the tool and its needs may touch: `order:` for `order:{order_id}`."""
    if tool is None:
        return frozenset()
    return frozenset(
        template.partition("{")[0]
        for part in (tool, *tool.needed_tools.values())
        for template in part.options.resources
    )
