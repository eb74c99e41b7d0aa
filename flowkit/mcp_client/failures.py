"""Classify failures of MCP calls: the call ran, may have run, or didn't run.

Show addresses of MCP servers without possible keys.

Many public servers identify their users by a key in the address, in its path or after `?`.
"""

import logging
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from flowkit.errors import FlowkitError

HIDDEN = "…"
_RUN = re.compile(r"[A-Za-z0-9]+")
_KEY_LENGTH = 12
"""Words of a path with a digit in them are shorter, and keys are longer."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LOGGERS = (
    "httpx2",
    "mcp.client.streamable_http",
    "mcp.client.auth.oauth2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
)


def show_address(url: str) -> str:
    """Format an address without user, password and query, and without parts of its path that could be keys.

    >>> show_address("https://ann:pw@shop.example/v2/s/a81Hk3bd9LqW0/mcp?key=1")
    'https://shop.example/v2/s/…/mcp'
    """
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    path = re.split(r"[?#]", path)[0]
    host = re.split(r"[?#]", host)[0]
    shown = "/".join(HIDDEN if may_be_key(part) else part for part in path.split("/"))
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{shown}"


def may_be_key(part: str) -> bool:
    """Return True if a part of a path could be a key rather than a word.

    >>> [may_be_key(part) for part in ("a81Hk3bd9LqW0", "mcp-server-2025", "customer-orders", "v2")]
    [True, False, False, False]
    """
    text = unquote(part)
    if _UUID.search(text):
        return True
    return any(len(run) >= _KEY_LENGTH and not run.isalpha() for run in _RUN.findall(text))


def hide_keys(url: str) -> None:
    """Mask possible keys of this address from now on in the logs of the packages below."""
    keys = {key for found in _find_keys(url) for key in (found, unquote(found), quote(unquote(found)))}
    _hidden.keys |= keys
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_hidden)  # adding it again does nothing


def leave_out_keys(text: str) -> str:
    """Remove the keys of all addresses passed to `hide_keys` from a text, such as an error message."""
    for key in _hidden.keys:
        text = text.replace(key, HIDDEN)
    return text


def _find_keys(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    yield from (part for part in parts.path.split("/") if may_be_key(part))
    yield from (part for part in (parts.query, parts.password) if part)
    yield from (value for _, value in parse_qsl(parts.query) if len(value) >= _KEY_LENGTH)


class _Hidden(logging.Filter):
    """Mask keys of addresses and ids of sessions, which grant access to the session."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        shown = "Received session ID" if text.startswith("Received session ID") else leave_out_keys(text)
        if shown != text:
            record.msg, record.args = shown, ()
        if record.exc_info and self.keys:
            record.exc_text = leave_out_keys(logging.Formatter().formatException(record.exc_info))
        return True


_hidden = _Hidden()


CONNECTION_CLOSED = -32000
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603
UNREADABLE = -32098
"""Ours: an answer came, and isn't one of the protocol."""
NO_RESULT = "a result that isn't one of the protocol"
ERROR_CHARS_AT_MOST = 10_000
"""How much of a server's error a model reads."""


class Broken(FlowkitError):
    """The connection broke while the call was in flight; the call may have run."""


class Unanswered(FlowkitError):
    """No answer arrived in time. The call may have run; the server was sent a cancellation."""


class NotTaken(FlowkitError):
    """The server no longer knows the session, so it refused the call before running it."""


class WrongResult(FlowkitError):
    """The call ran, and its result doesn't fit the tool's output schema."""


def read_failure(error: BaseException) -> FlowkitError | None:
    """Classify an error of the `mcp` package; None for an error of the server itself."""
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
    """Truncate a server's text for the model.

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
    """Explain an error in one line, with the server's last output; for a group, its first error."""
    notes = [*getattr(error, "__notes__", ())]
    while members := _members(error):
        error = members[0]
        notes += getattr(error, "__notes__", ())
    text = leave_out_keys(" ".join(str(error).split()))
    if isinstance(error, FileNotFoundError):
        return f"there is no command {error.filename!r}" if error.filename else "there is no such command"
    said = text[:300] or type(error).__name__
    return f"{said}; it said: {notes[-1]}" if notes else said
