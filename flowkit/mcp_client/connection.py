"""One connection to an MCP server, owned by a task of its own.

`mcp.Client` must be entered and left in one task, and when a server goes away it cancels the task that entered it. So
a task that does nothing else owns it; calls come from any task and wait for its answers. When the connection breaks,
the owner leaves the client and, when the next call comes, enters a new one: one for all that wait.

MCP attributes for a call's span in flowkit's telemetry; the `mcp` package makes its own span below.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast
from urllib.parse import urlsplit

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, ToolError
from flowkit.mcp_client.call_clocks import CallClocks
from flowkit.mcp_client.failures import Broken, NotTaken, Unanswered, WrongResult, cut_text, explain, read_failure
from flowkit.mcp_client.transports import MODERN, MCPServer

METHOD = "mcp.method.name"
PROTOCOL_VERSION = "mcp.protocol.version"
TRANSPORT = "network.transport"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
SERVER_NAME = "flowkit.mcp.server"
SERVER_TOOL = "flowkit.mcp.tool"

OURS = "flowkit"


def find_span() -> Any:
    """Find the current span; None where nothing is recorded, and where it isn't flowkit's: the app's stay as they are."""
    from opentelemetry.trace import get_current_span

    span = get_current_span()
    if not span.is_recording() or getattr(getattr(span, "instrumentation_scope", None), "name", None) != OURS:
        return None
    return span


def mark_span(span: Any, server: str, where: str, tool: str, protocol_version: str) -> None:
    """Mark a span as a call of this server's tool.

    `where` is a command or an address without secrets. A session's id isn't shown, since it grants access to the session.
    """
    span.set_attribute(METHOD, "tools/call")
    span.set_attribute(PROTOCOL_VERSION, protocol_version)
    span.set_attribute(SERVER_NAME, server)
    span.set_attribute(SERVER_TOOL, tool)
    if "://" not in where:
        span.set_attribute(TRANSPORT, "pipe")
        return
    parts = urlsplit(where)
    span.set_attribute(TRANSPORT, "tcp")
    span.set_attribute(SERVER_ADDRESS, parts.hostname or "")
    span.set_attribute(SERVER_PORT, parts.port or (443 if parts.scheme == "https" else 80))


Era = Literal["auto", "legacy"]
CONNECT_S = 30.0
"""How long a server may take to be ready; the package has no bound of its own."""
CALL_S = 60.0
PAGES_AT_MOST = 100
TOOLS_AT_MOST = 1000
AT_ONCE = 8
"""Calls of one connection at once."""
CONNECT_TRIES = 3
REST_S = 30.0
"""How long a server that couldn't be reached is left alone."""
ROUNDS_AT_MOST = 10
"""How often a server may ask for more input within one call."""


class Ask(Protocol):
    """Answer a server's question to a person: the form's values, None to decline, or `"cancel"` to leave it open."""

    async def __call__(
        self, server: str, message: str, schema: Mapping[str, JSON]
    ) -> Mapping[str, JSON] | Literal["cancel"] | None: ...


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The bounds of one connection; times in seconds."""

    connect_s: float = CONNECT_S
    call_s: float = CALL_S
    at_once: int = AT_ONCE


class Connection:
    """One client's connection to a server: `open`, any number of calls, `close`.

    `version` grows whenever the server's list of tools may have changed.
    """

    def __init__(
        self,
        name: str,
        server: MCPServer,
        *,
        bounds: ConnectionBounds,
        era: Era,
        known_era: Era | None = None,
        ask: Ask | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.version = 0
        self.instructions = ""
        self._server = server
        self._bounds = bounds
        self._asked_era: Era = era
        self.era: Era = known_era or era
        """How to connect next. A server of the handshake era isn't asked for the newer one again: some never answer."""
        self._ask = ask
        self._call_clocks = CallClocks()
        self._clock = clock
        self._logger = logging.getLogger(f"flowkit.mcp.{name}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: asyncio.Task[None] | None = None
        self._client: asyncio.Future[Any] | None = None
        self._current: Any = None
        """The client that calls use; another one than a call had when the connection was made again meanwhile."""
        self._broken = asyncio.Event()
        self._is_closing = False
        self._rest_until = 0.0
        self._places = asyncio.Semaphore(bounds.at_once)

    async def open(self) -> None:
        """Connect; raises `ConfigurationError`, in one sentence, when that can't be done."""
        self._loop = asyncio.get_running_loop()
        await self._connected()

    async def close(self) -> None:
        """Disconnect; a server process is killed if it doesn't exit within a few seconds."""
        self._is_closing = True
        await self._leave()

    async def list_tools(self) -> list[Any]:
        """List the server's tools, page by page, as `mcp_types.Tool`; stops at a limit or at a repeated cursor.

        If the server was restarted meanwhile, retry once on a new connection.
        """
        try:
            return await self._list_pages()
        except (Broken, NotTaken):
            pass
        try:
            return await self._list_pages()
        except (Broken, NotTaken) as error:
            raise ToolError(f"{self.name} did not list its tools: {error}") from error

    async def _list_pages(self) -> list[Any]:
        tools: list[Any] = []
        seen: set[str | None] = {None}
        cursor: str | None = None
        for _ in range(PAGES_AT_MOST):
            client = await self._connected()
            try:
                async with self._call_clocks.limit(self._bounds.call_s):
                    page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            except TimeoutError as error:
                raise ToolError(f"{self.name} did not list its tools within {self._bounds.call_s:g} s") from error
            except Exception as error:  # the package and its transports raise many kinds
                failure = read_failure(error)
                if isinstance(failure, Broken | NotTaken):
                    if self._current is client:
                        self._broken.set()
                    raise failure from error
                raise ToolError(f"{self.name} did not list its tools: {explain(error)}") from error
            tools.extend(page.tools)
            cursor = page.next_cursor
            if cursor in seen or len(tools) >= TOOLS_AT_MOST:
                break
            seen.add(cursor)
        if len(tools) > TOOLS_AT_MOST:
            self._logger.warning("%s lists %d tools; the first %d are taken", self.name, len(tools), TOOLS_AT_MOST)
        return tools[:TOOLS_AT_MOST]

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, JSON],
        *,
        repeat: bool,
        progress: Callable[[float, float | None, str], None],
        meta: Mapping[str, JSON],
    ) -> Any:
        """Call a tool; return `mcp_types.CallToolResult`.

        If the server refused the call before it ran, or the connection broke and the call is repeatable, retry once on
        a new connection. Raises `Broken` or `Unanswered` if the call may have run, `ToolError` for an error of the
        server.
        """
        try:
            return await self._call(tool, arguments, progress, meta)
        except NotTaken:
            pass
        except Broken:
            if not repeat:
                raise
        try:
            return await self._call(tool, arguments, progress, meta)
        except NotTaken as error:
            raise ToolError(f"{self.name} refused the call: {error}") from error

    async def read_resource(self, uri: str) -> Any:
        """Read a resource; return `mcp_types.ReadResourceResult`."""
        client = await self._connected()
        try:
            async with self._call_clocks.limit(self._bounds.call_s):
                return await client.read_resource(uri)
        except Exception as error:  # as in `list_tools`
            if isinstance(read_failure(error), Broken | NotTaken):
                self._broken.set()
            raise ToolError(f"{uri!r} can't be read: {explain(error)}") from error

    async def _call(
        self,
        tool: str,
        arguments: Mapping[str, JSON],
        progress: Callable[[float, float | None, str], None],
        meta: Mapping[str, JSON],
    ) -> Any:
        async def tell(done: float, total: float | None, note: str | None) -> None:
            progress(done, total, note or "")

        async with self._places:
            client = await self._connected()
            span = find_span()
            if span is not None:
                mark_span(span, self.name, self._server.where, tool, client.protocol_version)
            # The package's own bound stands still for a login, not for a server's question.
            ours = self._ask is not None
            try:
                async with self._call_clocks.limit(self._bounds.call_s) if ours else nullcontext():
                    return await client.call_tool(
                        tool,
                        dict(arguments),
                        read_timeout_seconds=None if ours else self._bounds.call_s,
                        progress_callback=tell,
                        meta=cast(Any, dict(meta)) or None,
                    )
            except Exception as error:  # of the `mcp` package, the transport or the server: read into three kinds
                failure = read_failure(error)
                if isinstance(failure, Broken | NotTaken):
                    # All calls in flight end at once; the first to say so makes one reconnect for all.
                    if self._current is client:
                        self._broken.set()
                    raise failure from error
                if isinstance(failure, Unanswered | WrongResult):
                    raise failure from error
                from mcp.shared.exceptions import MCPError

                if isinstance(error, MCPError):
                    raise ToolError(cut_text(error.message)) from error
                raise

    async def _connected(self) -> Any:
        """Return the client, reconnecting where the connection broke; one attempt serves all waiters."""
        client = self._client
        loop = asyncio.get_running_loop()
        if client is not None and client.done() and self._loop is loop and not self._broken.is_set():
            return client.result()  # nearly always; its failure was taken by who waited for it first
        if self._loop is not loop:
            raise ConfigurationError(f"the MCP server {self.name!r} was opened in another event loop")
        if self._is_closing:
            raise ToolError(f"{self.name} is closed")
        if self._client is not None and self._broken.is_set():
            await self._leave()
        if self._client is None:
            if self._clock() < self._rest_until:
                raise ToolError(f"{self.name} is not reachable")
            self._client = loop.create_future()
            self._broken = asyncio.Event()
            self._owner = loop.create_task(self._own(self._client, self._broken), name=f"MCP server {self.name}")
        client = self._client
        try:
            return await asyncio.shield(client)
        except ConfigurationError:
            if self._client is client:
                self._client = None
                self._rest_until = self._clock() + REST_S if self.version else 0.0
            raise

    async def _leave(self) -> None:
        owner, broken = self._owner, self._broken
        broken.set()
        if owner is not None and self._client is not None and not self._client.done():
            owner.cancel()  # it is connecting still, and a server may take half a minute for that
        if owner is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(owner)
            if asyncio.current_task() is not None and not owner.done():
                await asyncio.wait([owner])  # stopped while leaving: the process must be gone all the same
                raise asyncio.CancelledError
        if self._owner is owner:
            self._owner = self._client = None

    async def _own(self, ready: "asyncio.Future[Any]", broken: asyncio.Event) -> None:
        """Enter the client, hand it out, and exit it when it broke or is no longer used."""
        tries_left = CONNECT_TRIES if self.version else 1
        while not ready.done():
            try:
                await self._serve(ready, broken)
            except BaseException as error:  # noqa: BLE001  # its end is told to whoever waits, and goes no further
                if ready.done():
                    # The package cancels its own task when a server goes away; calls in flight have their errors.
                    self._logger.info("the connection to %s ended: %s", self.name, explain(error))
                    break
                if self.era != self._asked_era and not broken.is_set():
                    self.era = self._asked_era  # what was known of the server may hold no more
                    continue
                tries_left -= 1
                if not tries_left or broken.is_set():
                    ready.set_exception(self._cannot_connect(error))
                    ready.exception()  # looked at, so that nobody who left is missed
        broken.set()

    async def _serve(self, ready: "asyncio.Future[Any]", broken: asyncio.Event) -> None:
        from mcp import Client

        client = Client(
            self._server.open(self._logger.warning, self._bounds.call_s),
            mode=self.era,
            message_handler=self._hear,
            elicitation_callback=None if self._ask is None else self._elicit,
            input_required_max_rounds=ROUNDS_AT_MOST,
            client_info=_client_info(),
        )
        async with self._call_clocks.limit(self._bounds.connect_s) as limit, client:
            limit.stop()
            if client.protocol_version < MODERN:
                self.era = "legacy"
            self.instructions = client.instructions or ""
            self.version += 1
            self._current = client
            ready.set_result(client)
            listening = asyncio.create_task(self._listen(client))
            try:
                await broken.wait()
            finally:
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening

    async def _hear(self, message: object) -> None:
        from mcp_types import ToolListChangedNotification

        if isinstance(getattr(message, "root", message), ToolListChangedNotification):
            self.version += 1

    async def _listen(self, client: Any) -> None:
        """Listen for changed tools where the protocol has no notifications: from 2026-07-28 on."""
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.version += 1
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # no server has to offer this, and each says so in its own way
            self._logger.debug("%s tells nothing of changed tools: %s", self.name, explain(error))

    async def _elicit(self, context: object, params: Any) -> Any:
        """Call the app's function. An address to open is passed to it, and never opened here."""
        from mcp_types import ElicitResult

        assert self._ask is not None
        schema = getattr(params, "requested_schema", None) or {"url": str(getattr(params, "url", ""))}
        try:
            with self._call_clocks.stand_still():
                answer = await self._ask(self.name, params.message, schema)
        except Exception:  # the app's own function: its fault mustn't break the connection
            self._logger.exception("ask= failed; %s is told that its question stays open", self.name)
            answer = "cancel"
        if answer is None:
            return ElicitResult(action="decline")
        if answer == "cancel":
            return ElicitResult(action="cancel")
        return ElicitResult(action="accept", content=cast(Any, dict(answer)))

    def _cannot_connect(self, error: BaseException) -> ConfigurationError:
        if isinstance(error, TimeoutError):
            return ConfigurationError(
                f"the MCP server {self.name!r} ({self._server.where}) said nothing for {self._bounds.connect_s:g} s"
            )
        return ConfigurationError(
            f"the MCP server {self.name!r} ({self._server.where}) can't be reached: {explain(error)}"
        )


def _client_info() -> Any:
    from mcp_types import Implementation

    from flowkit import __version__

    return Implementation(name="flowkit", version=__version__)
