"""Seal or void each call, once.

A sealed text may turn out to be several calls: glued together by the server, or put into a wrapper by the model. Those
become calls of their own, behind the ones that are there. Names are cleaned on the way: what a model meant by one is
looked up among those that it was told, and a name that leads nowhere stays as it was, for the model to read.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from flowkit.assemble.arguments_text import MAX_GLUED, Reading, read_fragments, read_object
from flowkit.assemble.calls import TOO_MANY, CallBook, GrowingCall
from flowkit.assemble.parts import CallFragment, CallOpened, CallVoided, Part, SealedCall, TurnCall
from flowkit.codec import JSON, dumps
from flowkit.models.base import ProviderDelta


class Sealer:
    """The calls of one turn, opened, sealed and voided, each with an id of its own."""

    def __init__(self, book: CallBook, known_names: Collection[str], taken: Collection[str]) -> None:
        self._book = book
        self._known = known_names
        self._taken = set(taken)

    def open(self, call: GrowingCall, parts: list[Part]) -> None:
        """Report the call once its name is known; a wrapper is never reported."""
        if call.opened or call.state != "open" or not call.name:
            return
        call.name = clean_name(call.name, self._known)
        if is_wrapper(call.name, self._known):
            return
        call.opened = True
        parts.append(CallOpened(call.index, call.name))
        if call.fragments:
            parts.append(CallFragment(call.index, "".join(call.fragments)))

    def seal(self, call: GrowingCall, parts: list[Part]) -> None:
        """Seal the call: nothing more can come for it."""
        self.open(call, parts)
        if call.custom:
            self._finish(call, Reading("".join(call.fragments), None), parts)
            return
        first, *glued = read_fragments(call.fragments)
        if not self._book.has_room(len(glued)):
            first, glued = Reading("".join(call.fragments), None, TOO_MANY), []
        if not call.opened and call.name and first.arguments is not None and not glued:
            wrapped = unwrap(first.arguments, self._known)
            if wrapped and self._book.has_room(len(wrapped) - 1):
                self._book.calls.remove(call)
                for position, inner in enumerate(wrapped):
                    provider = call.provider if position == 0 else None
                    wire_id = call.wire_id if position == 0 else None
                    self._add(inner.name, Reading(inner.raw, inner.arguments), parts, wire_id, provider)
                return
        self._finish(call, first, parts)
        for reading in glued:
            self._add(call.name, reading, parts)

    def seal_all(self) -> list[Part]:
        """Seal every call that is open."""
        parts: list[Part] = []
        for call in self._book.open_calls():
            self.seal(call, parts)
        return parts

    def void_all(self, reason: str) -> list[Part]:
        """Void every call that is open."""
        parts: list[Part] = []
        for call in self._book.open_calls():
            self.void(call, reason, parts)
        return parts

    def void(self, call: GrowingCall, reason: str, parts: list[Part]) -> None:
        """Void the call, which never became complete."""
        call.state = "void"
        call.error = reason
        call.id = self._make_id(call)
        if call.opened:
            parts.append(CallVoided(call.index, reason))

    def _add(
        self,
        name: str,
        reading: Reading,
        parts: list[Part],
        wire_id: str | None = None,
        provider: ProviderDelta | None = None,
    ) -> None:
        """Add a call that was found inside another."""
        call = self._book.add()
        call.name, call.wire_id, call.provider = name, wire_id, provider
        self._finish(call, reading, parts)

    def _finish(self, call: GrowingCall, reading: Reading, parts: list[Part]) -> None:
        error = reading.error if call.name else "the call has no name"
        call.raw, call.error = reading.raw, error
        call.arguments = reading.arguments if error is None else None
        call.state = "sealed" if error is None else "invalid"
        call.id = self._make_id(call)
        if not call.opened:
            call.opened = True
            parts += (CallOpened(call.index, call.name), CallFragment(call.index, reading.raw))
        parts.append(
            SealedCall(
                index=call.index,
                id=call.id,
                name=call.name,
                arguments=call.arguments,
                raw=reading.raw,
                error=error,
                provider=call.provider,
                wire_id=call.wire_id,
                custom=call.custom,
            )
        )

    def _make_id(self, call: GrowingCall) -> str:
        """Return the server's id, or a new one if it is missing or taken.

        New ids have nine letters and digits, the only form that Mistral accepts.
        """
        id = call.wire_id
        if id is None or id in self._taken:
            number = call.index + 1
            while (id := f"call{number:05d}") in self._taken:
                number += 1
        self._taken.add(id)
        return id


def show(call: GrowingCall) -> TurnCall:
    """Return the call as a turn shows it."""
    settled = call.state in ("sealed", "invalid")
    raw = call.raw if settled else "".join(call.fragments)
    return TurnCall(
        index=call.index,
        id=call.id or call.wire_id or "",
        name=call.name,
        arguments=call.arguments if settled else read_object(raw),
        raw=raw,
        state=call.state,
        error=call.error,
        wire_id=call.wire_id,
        custom=call.custom,
        provider=call.provider,
    )


_WRAPPERS = frozenset(("multi_tool_use.parallel", "multi_tool_use_parallel", "parallel"))
_PREFIX = re.compile(r"^(?:functions?|tools?|default_api)[.:/]", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:<\|.*|:\d+|\(\))$", re.DOTALL)
_OTHER = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class WrappedCall:
    """One call inside a wrapper; `raw` is the JSON text of its arguments."""

    name: str
    arguments: dict[str, JSON]
    raw: str


def clean_name(name: str, known: Collection[str]) -> str:
    """Return the known name that was meant, or `name` itself if none or several match.

    Models may add `functions.`, a channel marker or a blank to a name, or change its case.

    >>> clean_name("functions.get_weather<|channel|>commentary", {"get_weather"})
    'get_weather'
    >>> clean_name("Get_Weather ", {"get_weather"})
    'get_weather'
    >>> clean_name("functions.fly", {"get_weather"})
    'functions.fly'
    """
    if not known or name in known:
        return name
    short = name.strip()
    while short not in known:
        shorter = _PREFIX.sub("", _SUFFIX.sub("", short).strip()).strip()
        if shorter == short:
            break
        short = shorter
    if short in known:
        return short
    alike = [other for other in known if _normalise(other) == _normalise(short)]
    return alike[0] if len(alike) == 1 else name


def is_wrapper(name: str, known: Collection[str]) -> bool:
    """Return whether this is the name of a wrapper, and of no tool; without known names, nothing is one."""
    if not known or name in known:
        return False
    return name in _WRAPPERS or _PREFIX.sub("", name.strip()) in _WRAPPERS


def unwrap(arguments: Mapping[str, JSON], known: Collection[str]) -> tuple[WrappedCall, ...]:
    """Unwrap the calls in a wrapper's `tool_uses`; none when any of them can't be read."""
    uses = arguments.get("tool_uses")
    if not isinstance(uses, list) or len(uses) > MAX_GLUED:
        return ()
    calls: list[WrappedCall] = []
    for use in uses:
        if not isinstance(use, dict):
            return ()
        name = use.get("recipient_name", use.get("name"))
        parameters = use.get("parameters", use.get("arguments", cast(JSON, {})))
        if isinstance(parameters, str):
            parameters = read_object(parameters)
        if not isinstance(name, str) or not isinstance(parameters, dict):
            return ()
        calls.append(WrappedCall(clean_name(name, known), parameters, dumps(parameters).decode()))
    return tuple(calls)


def _normalise(name: str) -> str:
    return _OTHER.sub("_", name.lower()).strip("_")
