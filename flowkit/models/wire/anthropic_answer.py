"""One answer of the Messages API, possibly over several requests.

The vendor's own tools run within an answer, and when they take long it pauses: the answer so far is sent back as it is,
and goes on. And a signature that the server doesn't take any more is no reason to lose the conversation: the thinking
of earlier turns is left out, and the server asked once more.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from flowkit.codec import JSON
from flowkit.errors import ModelError
from flowkit.messages import AssistantMessage, ProviderData, Usage
from flowkit.models.base import (
    CallDelta,
    CallDone,
    Delta,
    EndDelta,
    ErrorDelta,
    FinishDelta,
    ModelRequest,
    ProviderDelta,
    TextDelta,
    ThinkingDelta,
    UsageDelta,
)
from flowkit.models.wire.anthropic import AnthropicReader
from flowkit.models.wire.anthropic_request import build_anthropic_body
from flowkit.models.wire.anthropic_words import PAUSES
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.tool_schemas import OwnNames, find_aliases

MOST_PAUSES = 5
"""How often an answer is gone on with; a tool that never ends would pause for ever."""

_ABOUT_THINKING = re.compile(r"signature|thinking.{0,20} block|block.{0,40}thinking", re.IGNORECASE | re.DOTALL)
"""What a server says of thinking that it doesn't take back."""


class AnthropicAnswer:
    """The bodies of an answer's requests, and its deltas as those of one."""

    def __init__(self, settings: Settings, request: ModelRequest) -> None:
        self._settings = settings
        self._request = request
        self._keeps_thinking = True
        self._aliases = find_aliases(request.tools)
        self._named: dict[int | None, Mapping[str, str]] = {}  # by call, where its arguments have aliases
        self._own_names: dict[int | None, OwnNames] = {}
        self._reader = AnthropicReader()
        self._pauses = 0
        self._is_paused = False
        self._blocks: list[ProviderData] = []
        self._spent = Usage()  # by the requests before this one
        self._usage = Usage()

    @property
    def short_way(self) -> tuple[type, ...]:
        """The kinds of deltas that are those of the whole answer as they are; nearly all deltas are of these."""
        return (TextDelta, ThinkingDelta) if self._aliases else (TextDelta, CallDelta, ThinkingDelta)

    def make_body(self) -> dict[str, JSON]:
        """Make the body of the first request."""
        return build_anthropic_body(self._request, self._settings, keeps_thinking=self._keeps_thinking)

    def make_body_without_thinking(self, error: ModelError) -> dict[str, JSON] | None:
        """Make the same body without the thinking of earlier turns, where the server refused that; else None."""
        # https://github.com/anomalyco/opencode/issues/48637
        if error.status != 400 or not _ABOUT_THINKING.search(str(error)):
            return None
        refused = self.make_body()
        self._keeps_thinking = False
        body = self.make_body()
        return None if body["messages"] == refused["messages"] else body

    def make_reader(self) -> AnthropicReader:
        """Make the reader of the next body."""
        self._reader = AnthropicReader(first_slot=self._reader.slots, has_thought=self._reader.has_thought)
        return self._reader

    def make_next_body(self) -> dict[str, JSON] | None:
        """Make the body that continues the answer, or None when it is complete."""
        if not self._is_paused:
            return None
        self._is_paused = False
        self._pauses += 1
        self._spent, self._usage = self._spent + self._usage, Usage()
        said = AssistantMessage("".join(_text(item) for item in self._blocks), provider=tuple(self._blocks))
        request = replace(self._request, messages=(*self._request.messages, said))
        return build_anthropic_body(request, self._settings, keeps_thinking=self._keeps_thinking, goes_on=True)

    def take(self, delta: Delta) -> tuple[Delta, ...]:
        """Convert a delta of one body to deltas of the whole answer."""
        match delta:
            case CallDelta() | CallDone() if self._aliases:
                return self._give_own_names(delta)
            case UsageDelta():
                self._usage = delta.usage
                return (UsageDelta(self._spent + delta.usage) if self._pauses else delta,)
            case ProviderDelta():
                self._blocks.append(delta.tag(self._settings.source))
                return (delta,)
            case FinishDelta(wire=wire) if wire in PAUSES:
                if self._pauses == MOST_PAUSES:
                    return (ErrorDelta(ModelError(f"the server paused its answer {MOST_PAUSES + 1} times")),)
                self._is_paused = True
                return ()
            case EndDelta() if self._is_paused:
                return ()
            case _:
                return (delta,)

    def _give_own_names(self, delta: CallDelta | CallDone) -> tuple[CallDelta | CallDone, ...]:
        """Give the arguments of a call the names that its tool knows."""
        names = self._aliases.get(delta.name or "")
        if names is not None:
            self._named[delta.slot] = names
            self._own_names[delta.slot] = OwnNames(names)
        if delta.arguments is None or delta.slot not in self._named:
            return (delta,)
        if isinstance(delta, CallDone):
            return (replace(delta, arguments=OwnNames(self._named[delta.slot]).feed(delta.arguments)),)
        own = self._own_names[delta.slot].feed(delta.arguments)
        return (delta._replace(arguments=own or None),)


def _text(item: ProviderData) -> str:
    return str(item.data.get("text") or "") if item.kind == "text" and isinstance(item.data, dict) else ""
