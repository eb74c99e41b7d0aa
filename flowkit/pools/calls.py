"""A call and its outcome as bytes: a line of JSON with its kind, then the arguments or the result as JSON.

The body is separate, so that a result of 50 MB is written and read once.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson
from pydantic import SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from flowkit.codec import JSON, dumps, loads
from flowkit.errors import InDoubt, ToolArgumentsError, ToolError, ToolResultError
from flowkit.tools import Tool
from flowkit.tools.keys import make_key
from flowkit.tools.places import FunctionAddress
from flowkit.tools.schema.arguments import Arguments

AnyTool = Tool[..., Any]

BLOB_BYTES = 1 << 20
"""What is larger goes straight between the two processes that have it and want it."""


class PoolFailure(Exception):
    """A pool didn't start a call, or doesn't know its outcome; errors of the function itself are other types."""


class CallRefused(PoolFailure):
    """A pool can't run this call, and didn't start it: it has other code, another version, or isn't reachable."""


class Gone(CallRefused):
    """The pool was there, and can't be reached any more."""


class Lost(PoolFailure):
    """The process that ran a call died, so the call's outcome is unknown."""


class NotBegun(PoolFailure):
    """The process that should have run a call went before it began."""


class Late(Exception):
    """The call must not start: it was stopped, or its claim expired."""


class Unshown(Exception):
    """A function returned a value that can't be JSON. It has run, so it must not be retried."""

    def __init__(self, error: ToolResultError) -> None:
        super().__init__(str(error))
        self.error = error


class RemoteTraceback(Exception):
    """The traceback of the other process, as the cause of its error."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


@dataclass(frozen=True, slots=True)
class PoolCall:
    """A call as it goes to another process; `body` has the arguments as JSON, `needed` names those of its needs."""

    place: FunctionAddress
    code: str
    body: bytes
    needed: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Write it as a line of JSON, and the arguments."""
        place = self.place
        head = {"place": [place.module, place.qualname, place.file], "code": self.code, "needed": self.needed}
        return orjson.dumps(head) + b"\n" + self.body

    @staticmethod
    def from_bytes(message: bytes) -> "PoolCall":
        """Read what `to_bytes` has written."""
        line, body = split(message)
        head = cast(dict[str, Any], loads(line))
        return PoolCall(FunctionAddress(*head["place"]), head["code"], body, tuple(head["needed"]))


Kind = Literal["done", "tool", "doubt", "result", "other", "refused", "late"]


@dataclass(frozen=True, slots=True)
class PoolOutcome:
    """The outcome of a call in another process; `took_s` is the function's own time, and `body` its result as JSON."""

    kind: Kind
    body: bytes = b""
    took_s: float = 0.0
    error: str = ""
    error_type: str = ""
    retryable: bool = False
    trace: str = ""
    kinds: tuple[int, ...] = ()
    """Which of the tool's `cache_errors` it is, by their places."""

    def to_bytes(self) -> bytes:
        """Write it as a line of JSON, and the result."""
        head = {name: getattr(self, name) for name in self.__slots__ if name != "body"}
        return dumps(head) + b"\n" + self.body

    @staticmethod
    def from_bytes(message: bytes) -> "PoolOutcome":
        """Read what `to_bytes` has written."""
        line, body = split(message)
        head = cast(dict[str, Any], loads(line))
        head["kinds"] = tuple(head["kinds"])
        return PoolOutcome(body=body, **head)

    @staticmethod
    def of_error(error: BaseException, tool: AnyTool | None, took_s: float = 0.0) -> "PoolOutcome":
        """Convert a function's error to data."""
        kind: Kind = "other"
        if isinstance(error, InDoubt):
            kind = "doubt"
        elif isinstance(error, ToolError):
            kind = "tool"
        known: Sequence[type[Exception]] = () if tool is None else tool.cache_errors
        return PoolOutcome(
            kind,
            took_s=took_s,
            error=str(error),
            error_type=type(error).__name__,
            retryable=getattr(error, "retryable", False) is True,
            trace="".join(traceback.format_exception(error)),
            kinds=tuple(place for place, one in enumerate(known) if isinstance(error, one)),
        )

    def read(self, tool: AnyTool) -> JSON:
        """Return the result, or raise an error with the name and text of the function's error."""
        match self.kind:
            case "done":
                return loads(self.body)
            case "refused":
                raise CallRefused(self.error) from _cause(self.trace)
            case "late":
                raise Late
            case "result":
                raise Unshown(ToolResultError(self.error))
            case "tool":
                error = self._rebuild(ToolError, tool)
                cast(ToolError, error).retryable = self.retryable
            case "doubt":
                error = self._rebuild(InDoubt, tool)
            case "other":
                error = self._rebuild(Exception, tool)
        raise error from _cause(self.trace)

    def _rebuild(self, base: type[Exception], tool: AnyTool) -> Exception:
        """Make an error that is called as the one there, of the kinds that this process asks about."""
        kinds = [tool.cache_errors[place] for place in self.kinds if place < len(tool.cache_errors)]
        text = self.error

        def say(_: object) -> str:
            return text

        names: dict[str, Any] = {"__str__": say, "__module__": "flowkit.pools"}
        bases = [kind for kind in dict.fromkeys(kinds) if not issubclass(base, kind)]
        if not any(issubclass(kind, base) for kind in bases):
            bases.append(base)
        try:
            kind = cast(type[Exception], type(self.error_type or "Error", tuple(bases), names))
        except TypeError:  # two kinds that no class can be together
            kind = cast(type[Exception], type(self.error_type or "Error", (base,), names))
        # Without its constructor, which may ask for anything.
        return kind.__new__(kind, text)


def _cause(trace: str) -> RemoteTraceback | None:
    return RemoteTraceback(trace) if trace else None


def split(message: bytes) -> tuple[bytes, bytes]:
    """Return the first line of a message, and what follows."""
    end = message.index(b"\n")
    return message[:end], message[end + 1 :]


def hash_code(tool: AnyTool) -> str:
    """Hash the code's version or its source, independent of the tool's name."""
    parts = cast(list[JSON], tool.code_parts)[1:]
    return make_key([*parts, tool.effect, *(need.tool.code() for need in tool.needs)])[:16]


def make_call(tool: AnyTool, arguments: Arguments) -> PoolCall:
    """Write a call for another process; raises `ToolArgumentsError` for an argument that JSON can't carry."""
    place = tool.place
    assert place is not None
    names = {need.parameter for need in tool.needs}
    needed = tuple(name for name in arguments.values if name in names)
    return PoolCall(place, hash_code(tool), _write_arguments(tool, arguments, needed), needed)


def _write_arguments(tool: AnyTool, arguments: Arguments, needed: Sequence[str]) -> bytes:
    source = arguments.source
    if isinstance(source, bytes):
        return source
    if isinstance(source, str):
        return source.encode()
    try:
        body = dumps(source)
        # Equal when it is read again: a tuple or a date isn't, nor a NaN, nor what pydantic would write otherwise.
        if loads(body) == source:
            return body
    except ValueError:
        pass
    try:
        body = dumps(to_jsonable_python(_open_secrets(source), bytes_mode="base64", by_alias=True))
        read = read_arguments(tool, body, needed)
    except (ValueError, TypeError, ToolArgumentsError) as error:
        raise ToolArgumentsError(
            tool.name, [f"it runs in another process, where JSON can't take it: {error}"]
        ) from None
    changed = next(
        (name for name, value in arguments.values.items() if not _is_same(value, read.values.get(name))), None
    )
    if changed is not None:
        raise ToolArgumentsError(
            tool.name, [f"it runs in another process, and {changed!r} would arrive there as another value"]
        )
    return body


def _is_same(value: object, other: object) -> bool:
    try:
        return bool(value == other)
    except Exception:  # noqa: BLE001  # an object of the author's, such as an array
        return False


def _open_secrets(value: object) -> object:
    """Unwrap secrets, which would otherwise be serialised as a mask."""
    if isinstance(value, (SecretStr, SecretBytes)):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {name: _open_secrets(item) for name, item in cast(dict[object, object], value).items()}
    if isinstance(value, list):
        return [_open_secrets(item) for item in cast(list[object], value)]
    return value


def read_arguments(tool: AnyTool, body: bytes, needed: Sequence[str]) -> Arguments:
    """Return the function's values, checked as for a call in place; raises `ToolArgumentsError`."""
    if not needed:
        return tool.validate(body)
    given = cast(dict[str, object], loads(body))
    filled = {name: given.pop(name) for name in needed if name in given}
    return tool.validate(given, filled)
