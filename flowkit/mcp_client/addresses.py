"""Addresses of MCP servers as they may be shown: without what may be a key.

Many servers that are offered to everybody tell their users apart by a key in the address, in its path or behind `?`.
"""

import logging
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, unquote, urlsplit

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
    """Show an address without what stands before an @ and behind a ?, and without the parts of its path that may be keys.

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
    """Tell a part of a path that may be a key from a word.

    >>> [may_be_key(part) for part in ("a81Hk3bd9LqW0", "mcp-server-2025", "customer-orders", "v2")]
    [True, False, False, False]
    """
    text = unquote(part)
    if _UUID.search(text):
        return True
    return any(len(run) >= _KEY_LENGTH and not run.isalpha() for run in _RUN.findall(text))


def hide_keys(url: str) -> None:
    """Hide from now on what may be a key in this address, wherever the packages below log it."""
    keys = {key for found in _find_keys(url) for key in (found, unquote(found), quote(unquote(found)))}
    _hidden.keys |= keys
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_hidden)  # adding it again does nothing


def leave_out_keys(text: str) -> str:
    """Take the keys of all addresses given to `hide_keys` out of a text, such as an error's."""
    for key in _hidden.keys:
        text = text.replace(key, HIDDEN)
    return text


def _find_keys(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    yield from (part for part in parts.path.split("/") if may_be_key(part))
    yield from (part for part in (parts.query, parts.password) if part)
    yield from (value for _, value in parse_qsl(parts.query) if len(value) >= _KEY_LENGTH)


class _Hidden(logging.Filter):
    """Hides keys of addresses, and the ids of sessions: who has one may use the session."""

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
