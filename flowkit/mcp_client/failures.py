"""Failures of MCP calls, by what they mean: did the call run, may it have run, did it not."""

from flowkit.errors import FlowkitError
from flowkit.mcp_client.addresses import leave_out_keys

CONNECTION_CLOSED = -32000
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
UNREADABLE = -32098
"""Ours: an answer came, and isn't one of the protocol."""
NO_RESULT = "a result that isn't one of the protocol"
ERROR_CHARS_AT_MOST = 10_000
"""How much of a server's error a model reads."""


class Broken(FlowkitError):
    """The connection broke while the call was in flight: it may have run."""


class Unanswered(FlowkitError):
    """No answer came in time: the call may have run, and the server was told to stop."""


class NotTaken(FlowkitError):
    """The server refused the call before it ran, since it doesn't know the session any more."""


class WrongResult(FlowkitError):
    """The call ran, and what came back isn't what the tool promises."""


def read_failure(error: BaseException) -> FlowkitError | None:
    """Read what an error of the `mcp` package means; None for what the server says itself."""
    from mcp.shared.exceptions import MCPError
    from pydantic import ValidationError

    error = unwrap(error)
    if isinstance(error, TimeoutError):
        return Unanswered(str(error) or "it did not answer in time")
    if isinstance(error, MCPError):
        text = error.message.casefold()
        if "timed out" in text:
            return Unanswered(error.message)
        if error.code == UNREADABLE:
            return WrongResult(NO_RESULT)
        if error.code == INVALID_REQUEST and "session" in text:
            return NotTaken(error.message)
        if error.code == CONNECTION_CLOSED or "stream ended" in text or "connection" in text:
            return Broken(error.message)
        return None
    if isinstance(error, RuntimeError) and "structured content" in str(error).casefold():
        return WrongResult("a result that its schema doesn't allow")
    if isinstance(error, ValidationError):
        return WrongResult(NO_RESULT)  # an answer all the same: the connection is whole
    return Broken(explain(error))


def cut_text(text: str) -> str:
    """Cut a text of a server to what a model should read of it.

    >>> len(cut_text("e" * 1_000_000)) < 10_100
    True
    """
    left_out = len(text) - ERROR_CHARS_AT_MOST
    return text if left_out <= 0 else f"{text[:ERROR_CHARS_AT_MOST]}… ({left_out:,} characters more)"


def unwrap(error: BaseException) -> BaseException:
    """Take an error out of groups that hold nothing else."""
    inner = _members(error)
    while len(inner) == 1:
        error = inner[0]
        inner = _members(error)
    return error


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return getattr(error, "exceptions", ())


def explain(error: BaseException) -> str:
    """Explain an error in one line, with what its server wrote last; of a group, its first."""
    notes = [*getattr(error, "__notes__", ())]
    while members := _members(error):
        error = members[0]
        notes += getattr(error, "__notes__", ())
    text = leave_out_keys(" ".join(str(error).split()))
    if isinstance(error, FileNotFoundError):
        return f"there is no command {error.filename!r}" if error.filename else "there is no such command"
    said = text[:300] or type(error).__name__
    return f"{said}; it said: {notes[-1]}" if notes else said
