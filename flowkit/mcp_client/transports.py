"""Ways to reach an MCP server: a process on standard input and output, or an address.

Each way is a transport of the `mcp` package, with a filter between it and the session: one tool with a schema that the
package can't read would otherwise make every listing and every call fail.
"""

import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from flowkit.codec import JSON

Report = Callable[[str], None]
"""Takes one sentence for the operator."""


class Server(Protocol):
    """An MCP server that can be connected to, again and again."""

    @property
    def where(self) -> str:
        """The command or the address, without secrets."""
        ...

    def open(self, report: Report) -> AbstractAsyncContextManager[Any]:
        """Make a transport for one connection, as `mcp.Client` takes it."""
        ...


@dataclass(frozen=True)
class StdioServer:
    """A command whose standard input and output speak MCP.

    The process gets the environment that `mcp` hands on (HOME, PATH and the like) and `env`; what it writes to its
    standard error goes to `logger`, line by line.
    """

    command: str
    arguments: tuple[str, ...]
    logger: logging.Logger
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: Path | None = None

    @property
    def where(self) -> str:
        return self.command

    @asynccontextmanager
    async def open(self, report: Report) -> AsyncGenerator[Any]:
        from mcp.client.stdio import StdioServerParameters, stdio_client

        parameters = StdioServerParameters(
            command=self.command, args=list(self.arguments), env=dict(self.env), cwd=self.cwd
        )
        _quieten()
        errlog = _StandardError(self.logger)
        try:
            with errlog:
                async with stdio_client(parameters, errlog=errlog.file) as streams, _filtered(streams, report) as clean:
                    yield clean
        except BaseException as error:
            if errlog.last:
                # Why a server ended is mostly the last thing that it wrote.
                error.add_note(errlog.last)
            raise


@dataclass(frozen=True)
class HttpServer:
    """An address that speaks MCP over streamable HTTP."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    auth: Any = field(default=None, repr=False)

    @property
    def where(self) -> str:
        scheme, separator, rest = self.url.partition("://")
        host, slash, path = rest.partition("/")
        # What stands before an @, and behind a ?, may be a key.
        return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"

    @asynccontextmanager
    async def open(self, report: Report) -> AsyncGenerator[Any]:
        from httpx2 import AsyncClient, Timeout
        from mcp.client.streamable_http import streamable_http_client

        # The package follows redirects itself, and never to another origin, so the headers go nowhere else.
        client = AsyncClient(headers=dict(self.headers), auth=self.auth, timeout=Timeout(30.0, read=300.0))
        async with (
            client,
            streamable_http_client(self.url, http_client=client) as streams,
            _filtered(streams, report) as cleaned,
        ):
            yield cleaned


class _StandardError:
    """A pipe for a process's standard error, read by a thread into a logger until the process closes it."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.last = ""
        """The last line that wasn't blank."""
        reading, writing = os.pipe()
        self._reading = os.fdopen(reading, encoding="utf-8", errors="replace")
        self.file = os.fdopen(writing, "w", encoding="utf-8")
        self._thread = threading.Thread(target=self._read, name=f"stderr of {logger.name}", daemon=True)

    def __enter__(self) -> "_StandardError":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        # A grandchild may hold the pipe open: the thread then ends with it, and nobody waits.
        self._thread.join(timeout=1)

    def _read(self) -> None:
        with self._reading:
            for line in self._reading:
                self._logger.info("%s", line.rstrip())
                self.last = " ".join(line.split())[:300] or self.last


class _OneLine(logging.Filter):
    """Turns the traceback that `mcp` logs for each line that isn't a message into one warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and "parse JSONRPC" in record.getMessage():
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg = "a server wrote a line to its standard output that is no message of the protocol"
            record.args = ()
        return True


_one_line = _OneLine()


def _quieten() -> None:
    # Adding the same filter again does nothing.
    logging.getLogger("mcp.client.stdio").addFilter(_one_line)


@asynccontextmanager
async def _filtered(streams: Any, report: Report) -> AsyncGenerator[Any]:
    """Pass messages on, listings without the tools that can't be read."""
    import anyio

    read, write = streams
    send, receive = anyio.create_memory_object_stream[Any](0)

    async def pump() -> None:
        async with send:
            async for message in read:
                if not isinstance(message, Exception):
                    clean_listing(getattr(message.message, "result", None), report)
                try:
                    await send.send(message)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return  # the session has gone

    async with anyio.create_task_group() as group:
        group.start_soon(pump)
        try:
            yield receive, write
        finally:
            group.cancel_scope.cancel()


def clean_listing(result: object, report: Report) -> None:
    """Mend the tools of a listing, in place, and leave out those that can't be read.

    An input schema without `type` is one of an object (the specification requires it, servers forget it).
    """
    from mcp_types import Tool
    from pydantic import ValidationError

    if not isinstance(result, dict) or not isinstance(tools := cast(dict[str, JSON], result).get("tools"), list):
        return
    kept: list[JSON] = []
    for tool in tools:
        if isinstance(tool, dict):
            schema = tool.get("inputSchema")
            if isinstance(schema, dict):
                schema.setdefault("type", "object")
            output = tool.get("outputSchema")
            if isinstance(output, dict) and not output:
                del tool["outputSchema"]
        try:
            Tool.model_validate(tool, by_name=False)
        except ValidationError as error:
            name = tool.get("name") if isinstance(tool, dict) else None
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"])
            report(f"tool {name!r} is left out: its definition can't be read ({where}: {first['msg']})")
        else:
            kept.append(tool)
    tools[:] = kept
