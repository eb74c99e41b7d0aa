"""`MCPTools`: the tools of an MCP server, as tools of flowkit.

With `async with`, one connection serves every run inside the block. Without it, each run that has the tools opens a
connection of its own and closes it at its end. A server's hints aren't trusted: an unmarked tool is a write,
until `effects=` says otherwise, and hints can only make that stricter, unless `trust_hints=True`.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self, Unpack, cast

from flowkit.codec import JSON, dump_sorted
from flowkit.context import Context
from flowkit.errors import ConfigurationError, DefinitionError, InDoubt, ToolError
from flowkit.identity import RunIdentity
from flowkit.mcp_client.connection import AT_ONCE, CALL_S, CONNECT_S, Ask, Connection, ConnectionBounds, Era
from flowkit.mcp_client.failures import Broken, Unanswered, WrongResult, cut_text
from flowkit.mcp_client.mcp_options import (
    Approve,
    Headers,
    MCPOptions,
    check_address,
    check_bounds,
    check_command,
    check_names,
    check_package,
    check_rules,
    check_texts,
)
from flowkit.mcp_client.results import read_contents, read_result, read_text
from flowkit.mcp_client.tool_refusals import find_refusal
from flowkit.mcp_client.transports import AT_A_TIME, HttpServer, MCPServer, StdioServer
from flowkit.tools import Tool, tool
from flowkit.tools.options import Effect, Scope
from flowkit.tools.toolsets import Toolset


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """The user's rules about a server's tools."""

    effects: Mapping[str, Effect]
    trust_hints: bool
    approval: Approve
    ttl: Mapping[str, float]
    scope: Scope | None
    prefix: str
    in_order: bool
    max_result_chars: int | None
    resources: bool


class MCPTools:
    """The tools of one MCP server; made by `stdio` or `http`.

    `name` identifies the server in errors, and is the prefix of its tools' names (`prefix=""` omits it).
    `effects` maps patterns of the server's tool names to effects; the first match wins. `trust_hints` trusts
    the server's hints about its tools. `approval="destructive"` requires approval for tools not known to be harmless.
    `ttl` caches results of reads, in seconds by the server's tool names, and needs a `scope`. `in_order` runs one call after
    another, for servers with shared state. `ask` answers a server that asks a person for input. `resources` adds a tool
    that reads the server's resources. Times are in seconds.
    """

    def __init__(
        self,
        make_server: Callable[[Context[Any] | None], MCPServer],
        *,
        name: str,
        effects: Mapping[str, Effect] | None = None,
        trust_hints: bool = False,
        approval: Approve = False,
        ttl: Mapping[str, float] | None = None,
        scope: Scope | None = None,
        prefix: str | None = None,
        in_order: bool = False,
        ask: Ask | None = None,
        resources: bool = False,
        connect_timeout: float = CONNECT_S,
        timeout: float = CALL_S,
        at_once: int = AT_ONCE,
        mode: Era = "auto",
        max_result_chars: int | None = None,
        per_user: bool = False,
    ) -> None:
        if not callable(make_server):
            raise ConfigurationError("write MCPTools.stdio(…) for a command, or MCPTools.http(…) for an address")
        check_package()
        check_rules(name, {} if effects is None else effects, approval, mode)
        check_bounds(name, connect_timeout=connect_timeout, timeout=timeout, at_once=at_once)
        if ttl and scope is None:
            raise ConfigurationError(
                f"MCP server {name!r}: a ttl needs a scope, since the connection's login decides what is seen"
            )
        if ttl and scope == "all" and per_user:
            raise ConfigurationError(
                f"MCP server {name!r}: each user has headers of his own, so scope='all' would share their results"
            )
        self.name = name
        self._make_server = make_server
        self._per_user = per_user
        self._rules = _Rules(
            effects=dict(effects or {}),
            trust_hints=trust_hints,
            approval=approval,
            ttl=dict(ttl or {}),
            scope=scope,
            prefix=f"{name}_" if prefix is None else prefix,
            in_order=in_order,
            max_result_chars=max_result_chars,
            resources=resources,
        )
        self._bounds = ConnectionBounds(connect_timeout, timeout, at_once)
        self._era: Era = mode
        self._known_era: Era | None = None
        self._ask = ask
        self._logger = logging.getLogger(f"flowkit.mcp.{name}")
        self._shared: Connection | None = None
        self._of_runs: dict[RunIdentity, Connection] = {}
        self._listings: dict[Connection, _Listing] = {}
        self._listing: dict[Connection, asyncio.Lock] = {}
        self._made: dict[str, tuple[str, Tool[..., Any]]] = {}
        self.tools = Toolset.dynamic(self._list, life=self._live)
        """The server's tools as a set for an agent; listed anew when the server says that they changed."""

    @classmethod
    def stdio(
        cls,
        command: str,
        *arguments: str,
        name: str,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        **options: Unpack[MCPOptions],
    ) -> Self:
        """Use a server that is a command, such as `npx`; further options are those of the class.

        The process gets HOME, PATH and the like, and `env`; keys of this program stay here.
        """
        check_names(options, "MCPTools.stdio()")
        check_command(name, (command, *arguments))
        check_texts(name, "env", env or {})
        server = StdioServer(
            os.fspath(command),
            arguments,
            logging.getLogger(f"flowkit.mcp.{name}"),
            dict(env or {}),
            None if cwd is None else Path(cwd),
        )
        return cls(lambda _: server, name=name, **options)

    @classmethod
    def http(
        cls, url: str, *, name: str, headers: Headers | None = None, auth: Any = None, **options: Unpack[MCPOptions]
    ) -> Self:
        """Use a server at an address, over streamable HTTP; further options are those of the class.

        `headers` can be a function of the run's context; then each run has its own connection. `auth` is an
        `httpx2` authentication, such as the OAuth provider of the `mcp` package.
        """
        check_names(options, "MCPTools.http()")
        check_address(name, url)
        if not callable(headers):
            check_texts(name, "headers", headers or {})
            server = HttpServer(url, dict(headers or {}), auth)
            return cls(lambda _: server, name=name, **options)

        def make_server(context: Context[Any] | None) -> MCPServer:
            if context is None:
                raise ConfigurationError(f"MCP server {name!r}: its headers depend on the run, so runs open it")
            return HttpServer(url, dict(headers(context)), auth)

        return cls(make_server, name=name, per_user=True, **options)

    async def __aenter__(self) -> Self:
        """Connect, for all runs inside; raises `ConfigurationError` when that can't be done."""
        if self._shared is not None:
            raise ConfigurationError(f"the MCP server {self.name!r} is open already; open it once, around its uses")
        connection = self._connect(None)
        try:
            await self._open(connection)
        except BaseException:  # cancelled, too: the server's process must not stay
            await connection.close()
            raise
        self._shared = connection
        return self

    async def __aexit__(self, *_: object) -> None:
        connection, self._shared = self._shared, None
        if connection is not None:
            self._forget(connection)
            await connection.close()

    def __repr__(self) -> str:
        return f"<MCP server {self.name}>"

    async def describe(self) -> str:
        """Describe in one line the tools of the server, which is open and shared."""
        names = [tool.name for tool in await self._list(Context(None))]
        return f"{len(names)} tools: {', '.join(names)}" if names else "no tools"

    @property
    def instructions(self) -> str:
        """The server's own instructions: foreign text; empty until it is connected."""
        return "" if self._shared is None else self._shared.instructions

    @property
    def is_open(self) -> bool:
        """Return whether all runs share one connection now; without it each run opens its own."""
        return self._shared is not None

    @property
    def where(self) -> str:
        """The server's command or address, without secrets; empty where it depends on the run."""
        return "" if self._per_user else self._make_server(None).where

    @staticmethod
    def find(tools: Toolset) -> "list[MCPTools | None]":
        """Find the servers behind a set's dynamic sources; None for a source that isn't one."""
        owners = [getattr(life, "__self__", None) for life in tools.lives]
        return [owner if isinstance(owner, MCPTools) else None for owner in owners]

    def load(self) -> Toolset:
        """Connect, list the tools and disconnect, blocking; for a recipe, which must know its tools.

        A run with one of these tools opens a new connection, or uses the shared one. Raises
        `ConfigurationError` when the server can't be reached.
        """

        async def list_once() -> list[Tool[..., Any]]:
            connection = self._connect(None)
            try:
                await self._open(connection)
                return await self._make_tools(await connection.list_tools(), [])
            finally:
                await connection.close()

        try:
            # In a thread of its own: the caller may stand in a running event loop.
            with ThreadPoolExecutor(1, thread_name_prefix=f"MCP server {self.name}") as thread:
                return Toolset(*thread.submit(asyncio.run, list_once()).result())
        except ToolError as error:
            raise ConfigurationError(str(error)) from error

    def _connect(self, context: Context[Any] | None) -> Connection:
        server = self._make_server(context)
        return Connection(
            self.name, server, bounds=self._bounds, era=self._era, known_era=self._known_era, ask=self._ask
        )

    async def _open(self, connection: Connection) -> None:
        await connection.open()
        self._known_era = connection.era

    @asynccontextmanager
    async def _live(self, context: Context[Any]) -> AsyncGenerator[None]:
        """Hold a connection for one run, unless one is shared."""
        if self._shared is not None and not self._per_user:
            yield
            return
        connection = self._of_runs[context.identity] = self._connect(context)
        try:
            await self._open(connection)
            yield
        finally:
            if self._of_runs.get(context.identity) is connection:
                del self._of_runs[context.identity]
            self._forget(connection)
            await connection.close()

    def _forget(self, connection: Connection) -> None:
        self._listings.pop(connection, None)
        self._listing.pop(connection, None)

    def _find(self, context: Context[Any]) -> Connection:
        connection = self._of_runs.get(context.identity, self._shared)
        if connection is None:
            raise ToolError(f"{self.name} is not connected: use it in an agent's run, or inside `async with`")
        return connection

    async def _list(self, context: Context[Any]) -> Sequence[Tool[..., Any]]:
        """List the tools for the next turn; query the server only if they changed."""
        connection = self._find(context)
        # One listing at a time: runs that start together share the first one's.
        async with self._listing.setdefault(connection, asyncio.Lock()):
            return await self._list_anew(connection)

    async def _list_anew(self, connection: Connection) -> Sequence[Tool[..., Any]]:
        known = self._listings.get(connection)
        if known is not None and known.version == connection.version:
            return known.tools
        version = connection.version
        try:
            listed = await connection.list_tools()
        except ToolError as error:
            if known is None:
                raise ConfigurationError(str(error)) from error
            self._logger.warning("%s; the tools of before stay", error)
            return known.tools
        tools = await self._make_tools(listed, [] if known is None else known.tools)
        # What `list_tools` reconnected for is in this listing; what changed while it ran is not.
        self._listings[connection] = _Listing(version if known else connection.version, tools)
        return tools

    async def _make_tools(self, listed: Sequence[Any], before: Sequence[Tool[..., Any]]) -> list[Tool[..., Any]]:
        made: dict[str, Tool[..., Any]] = {}
        for position, definition in enumerate(listed):
            if position % AT_A_TIME == AT_A_TIME - 1:
                await asyncio.sleep(0)
            problem = find_refusal(definition)
            name = self._rules.prefix + definition.name
            if problem is None and name in made:
                problem = "its name stands in the list twice"
            if problem is None:
                try:
                    made[name] = self._make_tool(name, definition)
                    continue
                except DefinitionError as error:
                    problem = str(error)
            self._logger.warning("tool %r of %s is left out: %s", definition.name, self.name, problem)
        if self._rules.resources:
            reader = self._make_resource_reader()
            made.setdefault(reader.name, reader)
        # The order of before, new ones at the end: a stable prefix is what a provider's prompt cache keeps.
        kept = [made.pop(tool.name) for tool in before if tool.name in made]
        return [*kept, *made.values()]

    def _make_tool(self, name: str, definition: Any) -> Tool[..., Any]:
        said = [definition.name, definition.description, definition.input_schema, definition.output_schema]
        version = hashlib.sha256(dump_sorted(cast(JSON, said))).hexdigest()[:16]
        known = self._made.get(name)
        if known is not None:
            if known[0] == version:
                return known[1]  # the same object keeps its schema as it was lowered
            self._logger.warning("tool %s changed its definition", name)
        rules, hints = self._rules, definition.annotations
        effect = self._find_effect(definition.name, hints)
        ttl = next((ttl for pattern, ttl in rules.ttl.items() if fnmatchcase(definition.name, pattern)), None)
        options: dict[str, Any] = {
            "version": version,
            "approval": self._needs_approval(definition.name, hints),
            "timeout": None,  # the connection's own, which tells the server to stop
        }
        if effect is not None:
            options["effect"] = effect
        if rules.max_result_chars is not None:
            options["max_result_chars"] = rules.max_result_chars
        if ttl is not None and effect == "read":
            options |= {"ttl": ttl, "scope": rules.scope}
        if rules.in_order:
            options["resource"] = f"mcp:{self.name}"
        made = Tool.from_schema(
            name,
            definition.description or definition.title or definition.name,
            definition.input_schema,
            self._make_handler(definition.name, effect or "write"),
            result_schema=definition.output_schema,
            **options,
        )
        made.life, made.origin = self._live, f"MCP server {self.name} ({self.where})"
        self._made[name] = (version, made)
        return made

    def _find_effect(self, name: str, hints: Any) -> Effect | None:
        """Find the effect set by the user, or by a trusted server.

        None, which counts as a write, where neither sets one.
        """
        for pattern, effect in self._rules.effects.items():
            if fnmatchcase(name, pattern):
                return effect
        if self._rules.trust_hints and hints is not None:
            if hints.read_only_hint:
                return "read"
            if hints.idempotent_hint:
                return "idempotent"
        return None

    def _needs_approval(self, name: str, hints: Any) -> bool:
        if self._rules.approval != "destructive":
            return self._rules.approval
        if any(effect == "read" and fnmatchcase(name, pattern) for pattern, effect in self._rules.effects.items()):
            return False
        is_harmless = hints is not None and (hints.read_only_hint is True or hints.destructive_hint is False)
        # What an untrusted server says of itself can't spare a person's question.
        return not (self._rules.trust_hints and is_harmless)

    def _make_handler(self, name: str, effect: Effect) -> Callable[..., Any]:
        async def call(arguments: dict[str, Any], context: Context[Any]) -> Any:
            meta: dict[str, JSON] = {}
            if effect == "idempotent":
                meta["flowkit/idempotency-key"] = context.idempotency_key
            try:
                result = await self._find(context).call(
                    name, arguments, repeat=effect != "write", progress=context.progress, meta=meta
                )
            except ConfigurationError as error:
                raise ToolError(str(error)) from error
            except (Broken, Unanswered) as error:
                if effect == "write":
                    raise InDoubt(f"{self.name}: {error}") from error
                raise ToolError(f"{self.name}: {error}", retryable=isinstance(error, Unanswered)) from error
            except WrongResult as error:
                if effect == "read":
                    raise ToolError(f"{self.name} gave {error}") from error
                raise ToolError("it was done, but its result can't be shown; don't repeat it") from error
            if result.is_error:
                raise ToolError(cut_text(read_text(result)) or f"{name} failed, and {self.name} doesn't say why")
            return read_result(result)

        return call

    def _make_resource_reader(self) -> Tool[..., Any]:
        @tool(name=f"{self._rules.prefix}read_resource", effect="read")
        async def read_resource(uri: str, context: Context[Any]) -> Any:
            """Read a resource by its URI, as other results link to it."""
            result = await self._find(context).read_resource(uri)
            found = [read_contents(contents) for contents in result.contents]
            return found[0] if len(found) == 1 else found

        return read_resource


@dataclass(frozen=True, slots=True)
class _Listing:
    """The tools of one connection, and which of its listings they come from."""

    version: int
    tools: list[Tool[..., Any]]
