"""The options of `MCPTools`, checked when they are given and not when a run connects."""

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, TypedDict, cast, get_args

from flowkit.context import Context
from flowkit.errors import ConfigurationError
from flowkit.mcp_client.connection import Ask, Era
from flowkit.suggestions import check_option_names
from flowkit.tools.options import Effect, Scope

Headers = Mapping[str, str] | Callable[[Context[Any]], Mapping[str, str]]
Approve = bool | Literal["destructive"]
ELSEWHERE = {
    "args": "write the arguments after the command: MCPTools.stdio('npx', '-y', 'a-package', name=…)",
    "command": "write the command first: MCPTools.stdio('npx', '-y', 'a-package', name=…)",
    "url": "write the address first: MCPTools.http('https://shop.example/mcp', name=…)",
    "headers": "a command has no headers: its keys go into env=",
    "auth": "a command has no headers: its keys go into env=",
    "env": "a server at an address has no environment: its keys go into headers=",
    "cwd": "a server at an address has no folder",
}


class MCPOptions(TypedDict, total=False):
    """The options shared by commands and addresses; see `MCPTools`."""

    effects: Mapping[str, Effect] | None
    trust_hints: bool
    approval: Approve
    ttl: Mapping[str, float] | None
    scope: Scope | None
    prefix: str | None
    in_order: bool
    ask: Ask | None
    resources: bool
    connect_timeout: float
    timeout: float
    at_once: int
    mode: Era
    max_result_chars: int | None


def check_package() -> None:
    """Raise `ConfigurationError` where the `mcp` package isn't installed."""
    if find_spec("mcp") is None:
        raise ConfigurationError("MCPTools needs one more package: pip install 'flowkit-agents[mcp]'")


def check_names(options: Mapping[str, object], what: str) -> None:
    """Raise `TypeError` for an option that there isn't."""
    for name in options:
        if name in ELSEWHERE:
            raise TypeError(f"{what} has no option {name!r}; {ELSEWHERE[name]}")
    check_option_names(options, MCPOptions, what)


def check_command(name: object, words: Sequence[object]) -> None:
    """Raise `ConfigurationError` for a command that no process can be started with."""
    shape = "each word on its own: MCPTools.stdio('npx', '-y', 'a-package', name=…)"
    for word in words:
        if not isinstance(word, str | os.PathLike):
            raise ConfigurationError(f"MCP server {name!r}: the command has {word!r}, expected text, {shape}")
    command = os.fspath(cast(str, words[0]))
    if command.startswith(("http://", "https://")):
        raise ConfigurationError(f"MCP server {name!r}: {command!r} is an address: write MCPTools.http(…)")
    if len(words) == 1 and " " in command and shutil.which(command) is None:
        given = ", ".join(map(repr, shlex.split(command, posix=False)))
        raise ConfigurationError(
            f"MCP server {name!r}: there is no command {command!r}; write each word on its own: "
            f"MCPTools.stdio({given}, name={name!r})"
        )


def check_address(name: object, url: object) -> None:
    """Check an address; raises `ConfigurationError` if it isn't an HTTP address."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"MCP server {name!r}: the address must begin with http:// or https://")


def check_texts(name: object, option: str, given: object) -> None:
    """Raise `ConfigurationError` for an environment or headers that aren't names with texts; no value is shown."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"MCP server {name!r}: {option} must be a mapping of names to texts")
    for key, value in cast(Mapping[object, object], given).items():
        if not isinstance(key, str) or not isinstance(value, str):
            kind = type(value).__name__
            raise ConfigurationError(f"MCP server {name!r}: {option} has {key!r} with a value of {kind}, expected text")


def check_rules(name: object, effects: object, approval: object, mode: object) -> None:
    """Raise `ConfigurationError` for a name, effects, approval or mode that there isn't."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"an MCP server needs a name, and name is {name!r}: its tools are called NAME_tool")
    if not isinstance(effects, Mapping):
        raise ConfigurationError(
            f"MCP server {name!r}: effects is {effects!r}, expected patterns with effects: effects={{'*': 'read'}}"
        )
    for effect in cast(Mapping[object, object], effects).values():
        if effect not in get_args(Effect):
            raise ConfigurationError(f"MCP server {name!r}: effect is {effect!r}, expected read, idempotent or write")
    if not isinstance(approval, bool) and approval != "destructive":
        raise ConfigurationError(
            f"MCP server {name!r}: approval is {approval!r}, expected True, False or 'destructive'"
        )
    if mode not in get_args(Era):
        raise ConfigurationError(f"MCP server {name!r}: mode is {mode!r}, expected 'auto' or 'legacy'")


def check_bounds(name: object, **bounds: object) -> None:
    """Raise `ConfigurationError` for a bound that isn't a positive number."""
    for option, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigurationError(f"MCP server {name!r}: {option} is {value!r}, expected a number above 0")
