"""Fold events into the blocks on the screen: pieces of text and one block for each call, in the order they began."""

from dataclasses import dataclass, field
from typing import Literal, cast

from flowkit.codec import JSON
from flowkit.errors import GraphError, ResolutionError
from flowkit.events import (
    ApprovalAsked,
    ApprovalDecided,
    CallCancelled,
    CallDenied,
    CallFailed,
    CallFinished,
    CallInDoubt,
    CallNew,
    CallProgress,
    CallRetried,
    CallSealed,
    CallSkipped,
    CallStarted,
    CallVoid,
    CallWaiting,
    Event,
    RunFinished,
    RunStarted,
    TextDelta,
    ThinkingDelta,
    TurnFinished,
    TurnRetried,
    TurnStarted,
)
from flowkit.graph import INPUTS, Each, Graph, item_id
from flowkit.references import SCALARS, Reference, escape_key, lookup, parse_pointer

State = Literal[
    "new",
    "sealed",
    "waiting",
    "running",
    "finished",
    "failed",
    "skipped",
    "denied",
    "undecided",
    "cancelled",
    "void",
    "in_doubt",
]
CALL_ENDS = frozenset(
    ("call.finished", "call.failed", "call.skipped", "call.denied", "call.cancelled", "call.void", "call.in_doubt")
)
"""The types of the events that end a call."""
WAITS_FOR_APPROVAL = "waits for approval"
ASKED_AGAIN = "the stream broke off; retrying"
_CAUSES: dict[State, str] = {
    "failed": "failed",
    "denied": "was denied",
    "cancelled": "was stopped",
    "in_doubt": "is in doubt",
}
OPEN: frozenset[State] = frozenset(("new", "sealed", "waiting", "running"))
LOOK_BACK = 100
"""How many blocks are searched for a call's parent: with long lists side by side, more would cost more than the run."""


@dataclass(slots=True)
class TextBlock:
    """Text or thinking that streamed without a call in between; `call` names the step whose model speaks."""

    text: str
    is_thinking: bool
    call: str | None = None
    is_open: bool = True


@dataclass(slots=True)
class CallBlock:
    """A call's current state; `note` says what it waits for, the reason for its outcome, or its progress.

    An early call that has run stays open until it is sealed: `ran_t` is when it had run, and `note` its result.
    """

    call: str
    name: str
    depth: int = 0
    parent: str | None = None
    arguments: JSON = None
    state: State = "new"
    note: str = ""
    value: JSON = None
    source: str = "run"
    age_s: float | None = None
    is_early: bool = False
    opened_t: float = 0.0
    started_t: float | None = None
    ended_t: float | None = None
    progress: tuple[float, float | None] | None = None
    ran_t: float | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_prefetched(self) -> bool:
        """Return whether the agent began it before the model could ask for it."""
        return self.call.startswith("prefetch/")


Block = TextBlock | CallBlock


@dataclass(slots=True)
class Transcript:
    """All blocks of a run, changed only by `apply`. `results` are the values of references, by call."""

    blocks: list[Block] = field(default_factory=list[Block])
    calls: dict[str, CallBlock] = field(default_factory=dict[str, CallBlock])
    results: dict[str, JSON] = field(default_factory=dict[str, JSON])
    now: float = 0.0
    eaches: dict[str, Each] = field(default_factory=dict[str, Each])
    """The lists that a recipe goes through, by id: what an item's reference stands for is in no event."""
    asked: str | None = None
    """The model that has been asked and has said nothing yet, and since when."""
    asked_t: float = 0.0

    @classmethod
    def of_graph(cls, graph: Graph | None) -> "Transcript":
        """Make an empty transcript of a recipe's run."""
        nodes = () if graph is None else graph.values()
        return cls(eaches={node.id: node for node in nodes if isinstance(node, Each)})

    def apply(self, event: Event) -> CallBlock | TextBlock | None:
        """Take one event in; the block it changed."""
        self.now = max(self.now, event.t)
        self._note_silence(event)
        match event:
            case RunStarted(inputs=dict() as inputs):
                self.results[INPUTS] = inputs
                return None
            case TextDelta(text=text, call=call):
                return self._add_text(text, is_thinking=False, call=call)
            case ThinkingDelta(text=text, call=call):
                return self._add_text(text, is_thinking=True, call=call)
            case TurnFinished():
                self._close_text()
                return None
            case TurnStarted(attempt=attempt) if attempt > 1:
                self._close_text()
                self.blocks.append(TextBlock(ASKED_AGAIN, is_thinking=True, call=None, is_open=False))
                return None
            case CallNew():
                return self._open_call(event)
            case CallSkipped(call=call, because=because) if call in self.calls:
                _end(self.calls[call], "skipped", self._say_cause(because), event.t)
                return self.calls[call]
            case _:
                block = self.calls.get(str(getattr(event, "call", "")))
                if block is not None:
                    _change(block, event)
                    if isinstance(event, CallStarted | CallFinished):
                        block.arguments = self.fill_in(block.arguments)
                    if isinstance(event, CallFinished):
                        self.results[block.call] = event.value
                    elif isinstance(event, CallStarted) and block.call in self.eaches:
                        self._name_items(self.eaches[block.call])
                return block

    def _note_silence(self, event: Event) -> None:
        """Record the model that is waited for, from the start of its turn until its first output or the turn's end."""
        match event:
            case TurnStarted(model=model):
                self.asked, self.asked_t = model, event.t
            case TurnRetried(error=error, delay_s=delay_s):
                self.asked, self.asked_t = f"{delay_s:.1f} s before asking again: {error}", event.t
            case TextDelta(call=None) | ThinkingDelta(call=None) | TurnFinished() | RunFinished():
                self.asked = None
            case CallNew(call=call) if call.startswith("turn/"):
                self.asked = None
            case _:
                pass

    def fill_in(self, arguments: JSON) -> JSON:
        """Fill in the arguments of a call whose references are known by now."""
        if not isinstance(arguments, dict):
            return arguments
        return {name: self._find_value(argument) for name, argument in arguments.items()}

    def _find_value(self, argument: JSON) -> JSON:
        """Return a reference's value if it is one word or number; for a whole result the call's name is clearer."""
        match argument:
            case {"from_call": str(call), "path": str(pointer)} if call in self.results:
                try:
                    value = lookup(self.results[call], parse_pointer(pointer))
                except (GraphError, ResolutionError):
                    return argument
                return value if type(value) in SCALARS else argument
            case _:
                return argument

    def _name_items(self, each: Each) -> None:
        """Note the items of a list under the names by which the steps of each refer to it."""
        try:
            items = (
                lookup(self.results[each.over.call_id], each.over.path)
                if isinstance(each.over, Reference)
                else each.over
            )
            if not isinstance(items, list):
                return
            for index, item in enumerate(cast(list[JSON], items)):
                key: JSON = index
                if isinstance(each.key, Reference) and each.key.call_id == item_id(each.id):
                    key = lookup(item, each.key.path)
                self.results[item_id(f"{each.id}/{escape_key(str(key))}")] = item
        except (KeyError, ResolutionError):
            return  # the steps show references then

    def _say_cause(self, because: str) -> str:
        """Describe the outcome of the call that is the cause, or return the condition as it is."""
        cause = self.calls.get(because)
        return because if cause is None else f"{because} {_CAUSES.get(cause.state, 'has no result')}"

    def _add_text(self, text: str, *, is_thinking: bool, call: str | None) -> TextBlock:
        last = self._last_text()
        if last is None or (last.is_thinking, last.call) != (is_thinking, call):
            self._close_text()
            last = TextBlock("", is_thinking, call)
            self.blocks.append(last)
        last.text += text
        return last

    def _last_text(self) -> TextBlock | None:
        last = self.blocks[-1] if self.blocks else None
        return last if isinstance(last, TextBlock) and last.is_open else None

    def _close_text(self) -> None:
        for block in reversed(self.blocks):
            if isinstance(block, TextBlock):
                block.is_open = False
                return

    def _open_call(self, event: CallNew) -> CallBlock:
        self._close_text()
        parent = self.calls.get(event.parent or "")
        depth = 0 if parent is None else parent.depth + 1
        block = CallBlock(event.call, event.name, depth=depth, parent=event.parent, opened_t=event.t)
        self.calls[event.call] = block
        self.blocks.insert(self._find_place(parent), block)
        return block

    def _find_place(self, parent: CallBlock | None) -> int:
        """Return where a new call belongs: below its parent and the calls that the parent made before.

        A parent that is over may be printed already, and nothing can be inserted there.
        """
        end = len(self.blocks)
        if parent is None or not parent.is_open:
            return end
        for place in range(end, max(0, end - LOOK_BACK), -1):
            above = self.blocks[place - 1]
            if isinstance(above, CallBlock) and self._is_within(above, parent):
                return place
        return end

    def _is_within(self, block: CallBlock | None, parent: CallBlock) -> bool:
        """Return whether a call is `parent` or was made below it."""
        while block is not None and block.depth > parent.depth:
            block = self.calls.get(block.parent or "")
        return block is parent


def _change(block: CallBlock, event: Event) -> None:
    match event:
        case CallSealed(arguments=arguments):
            block.arguments = arguments
            if block.state == "new":
                block.state = "sealed"
        case CallWaiting(waiting_for=waiting_for, on=on):
            block.state = "waiting"
            block.note = f"waits for {', '.join(on) if on else waiting_for}"
        case CallStarted(early=early):
            block.state, block.note, block.is_early, block.ran_t = "running", "", early, None
            if block.started_t is None:
                block.started_t = event.t
        case CallProgress(done=done, total=total, note=note):
            block.progress, block.note = (done, total), note
            if block.is_early and done == total:
                block.ran_t = event.t
        case CallRetried(error=error, delay_s=delay_s):
            block.state, block.note = "waiting", f"retries in {delay_s:.1f} s: {error}"
        case ApprovalAsked(arguments=arguments):
            block.state, block.note, block.arguments = "waiting", WAITS_FOR_APPROVAL, arguments
        case ApprovalDecided(approved=approved, by=by):
            block.note = ("approved" if approved else "denied") + (f" by {by}" if by else "")
        case CallFinished():
            block.value, block.source, block.age_s = event.value, event.source, event.age_s
            _end(block, "finished", "", event.t if event.ended_s is None else event.ended_s)
        case CallFailed(error=error, ended_s=ended_s):
            _end(block, "failed", error, event.t if ended_s is None else ended_s)
        case CallDenied(reason=reason):
            _end(block, "denied", reason, event.t)
        case CallCancelled(waits=True):
            _end(block, "undecided", "", event.t)  # the run has ended, and a decision lets it go on
        case CallCancelled(reason=reason):
            _end(block, "cancelled", reason, event.t)
        case CallVoid(reason=reason):
            _end(block, "void", reason, event.t)
        case CallInDoubt(reason=reason):
            _end(block, "in_doubt", reason, event.t)
        case _:
            pass


def _end(block: CallBlock, state: State, note: str, t: float) -> None:
    block.state, block.note, block.ended_t = state, note, t
