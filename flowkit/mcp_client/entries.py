"""Read MCP servers from files: one entry each, with a command or an address and the user's settings for its tools."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from itertools import chain, count
from typing import Any, cast
from urllib.parse import urlsplit

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.mcp_client.failures import may_be_key
from flowkit.mcp_client.tools import MCPTools

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FILLED = ("env", "headers")


def read_entry(name: str, entry: Mapping[str, JSON], environ: Mapping[str, str]) -> MCPTools:
    """Make the tools of one validated entry, without connecting.

    `${NAME}` in `env`, `headers`, the command and the address is filled from `environ`, so no key is written in a
    file. Raises `ConfigurationError` for a variable that isn't set, and for options that don't fit together.
    """
    options = {key: value for key, value in entry.items() if key not in ("command", "url", *_FILLED)}
    for key in _FILLED:
        if key in entry:
            given = cast(Mapping[str, JSON], entry[key])
            options[key] = {inner: _fill(name, str(value), environ) for inner, value in given.items()}
    url, command = entry.get("url"), entry.get("command")
    if url is not None:
        return MCPTools.http(_fill(name, str(url), environ), name=name, **cast(Any, options))
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in cast(list[JSON], command)]
    if not words:
        raise ConfigurationError(f"MCP server {name!r}: its command is empty")
    return MCPTools.stdio(*(_fill(name, word, environ) for word in words), name=name, **cast(Any, options))


def read_commands(texts: Iterable[str]) -> list[MCPTools]:
    """Make the tools of servers that a person names on a command line; one package used twice has two names.

    >>> read_commands(["npx -y server-filesystem /data", "npx -y server-filesystem /home"])
    [<MCP server filesystem>, <MCP server filesystem_2>]
    """
    servers: list[MCPTools] = []
    for text in texts:
        servers.append(read_command(text, [server.name for server in servers]))
    return servers


def read_command(text: str, taken: Collection[str] = ()) -> MCPTools:
    """Make the tools of a server given on the command line as a command or an address.

    Its name differs from those in `taken`.

    >>> read_command("npx -y @modelcontextprotocol/server-filesystem@2026.8.31 /data")
    <MCP server filesystem>
    >>> read_command("https://shop.example/mcp")
    <MCP server shop>
    """
    if text.startswith(("http://", "https://")):
        try:
            return MCPTools.http(text, name=_make_name(_find_site(text), taken))
        except ValueError as error:
            raise ConfigurationError(f"the address of an MCP server can't be read: {error}") from error
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"the command {text!r} can't be read: {error}") from error
    if not words:
        raise ConfigurationError("the command of an MCP server is empty")
    return MCPTools.stdio(*words, name=_make_name(_find_package(words), taken))


def _find_site(url: str) -> str:
    """Derive a name from an address: a word of its path, else the site's name, else host and port.

    >>> [_find_site(url) for url in ("https://mcp.shop.example/mcp", "http://127.0.0.1:8000/mcp", "http://a:1/crm/mcp")]
    ['shop', 'localhost_8000', 'crm']
    """
    parts = urlsplit(url)
    steps = [step for step in parts.path.split("/") if step and not may_be_key(step)]
    words = [step for step in steps if not re.fullmatch(r"mcp|sse|api|v?\d[\d.]*", step)]
    if words:
        return words[0]
    host = parts.hostname or "server"
    labels = [label for label in host.split(".") if label not in ("www", "api", "mcp")] or [host]
    is_named = any(letter.isalpha() for letter in labels[0]) and ":" not in host
    if is_named and (len(labels) > 1 or parts.port is None):
        return labels[0]
    where = "localhost" if host in ("localhost", "127.0.0.1", "::1") else host
    return where if parts.port is None else f"{where}_{parts.port}"


def _find_package(words: list[str]) -> str:
    """Find the word that names the server in a command: the package in `npx -y PACKAGE@1 /data`."""
    launchers = ("npx", "uvx", "uv", "node", "python", "python3", "run", "tool", "pipx", "docker", "flowkit", "mcp")
    for word in words:
        base = word.replace("\\", "/").rpartition("/")[2]
        if word.startswith("-") or base.partition(".exe")[0] in launchers:
            continue
        return re.sub(r"(@[\d.]+.*|\.(py|js|mjs|ts))$", "", base)
    return "server"


def _make_name(text: str, taken: Collection[str]) -> str:
    name = re.sub(r"^(mcp-)?server-|^mcp-|-mcp$", "", text)
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_") or "server"
    others = (f"{name}_{number}" for number in count(2))
    return next(free for free in chain([name], others) if free not in taken)


def _fill(name: str, text: str, environ: Mapping[str, str]) -> str:
    def find(found: re.Match[str]) -> str:
        value = environ.get(found[1])
        if value is None:
            raise ConfigurationError(f"MCP server {name!r}: the environment variable {found[1]} isn't set")
        return value

    return _VARIABLE.sub(find, text)
