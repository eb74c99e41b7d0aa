"""Ways to reach an MCP server: a process on standard input and output, or an address.

Each way is a transport of the `mcp` package, with a filter between it and the session: one tool with a schema that the
package can't read would otherwise make every listing and every call fail.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, Self, TextIO, cast

from flowkit.codec import JSON
from flowkit.mcp_client.call_clocks import make_patient
from flowkit.mcp_client.failures import hide_keys, show_address
from flowkit.mcp_client.server_processes import MESSAGE_BYTES_AT_MOST, NOISE, Report, open_process

MODERN = "2026-07-28"
"""The version where no handshake says another."""
FAREWELL_S = 2.0
"""How long a server may take to hear that its session ends."""
AT_A_TIME = 20
"""After so many tools of a listing others have their turn: a long one takes seconds."""


class MCPServer(Protocol):
    """An MCP server that can be connected to, again and again."""

    @property
    def where(self) -> str:
        """The command or the address, without secrets."""
        ...

    def open(self, report: Report, call_s: float) -> AbstractAsyncContextManager[Any]:
        """Make a transport of `mcp.Client` for one connection; its calls time out after `call_s`."""
        ...


@dataclass(frozen=True)
class StdioServer:
    """A command that serves MCP over stdio.

    The process has the environment that `mcp` passes on (HOME, PATH and the like) and `env`. Its
    standard error is logged to `logger`, line by line.
    """

    command: str
    arguments: tuple[str, ...]
    logger: logging.Logger
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: Path | None = None
    platform: str = sys.platform

    @property
    def where(self) -> str:
        return self.command

    @asynccontextmanager
    async def open(self, report: Report, call_s: float) -> AsyncGenerator[Any]:
        errlog = _StandardError(self.logger)
        try:
            with errlog:
                async with self._start(errlog.file, report, call_s) as (read, write):
                    yield _Cleaned(read, report), write
        except BaseException as error:  # noted and raised again
            if errlog.last:
                # Why a server ended is mostly the last thing that it wrote.
                error.add_note(errlog.last)
            raise

    def _start(self, errlog: IO[str], report: Report, call_s: float) -> AbstractAsyncContextManager[tuple[Any, Any]]:
        from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client

        if self.platform == "win32":
            # The package finds `npx.cmd` there, and ends what a process started by a job object.
            logging.getLogger("mcp.client.stdio").addFilter(_one_line)  # adding it again does nothing
            command, arguments = self.command, list(self.arguments)
            parameters = StdioServerParameters(command=command, args=arguments, env=dict(self.env), cwd=self.cwd)
            return stdio_client(parameters, errlog=cast(TextIO, errlog))
        return open_process(
            [self.command, *self.arguments],
            env=get_default_environment() | dict(self.env),
            cwd=self.cwd,
            stderr=errlog,
            write_s=call_s,
            report=report,
        )


@dataclass(frozen=True)
class HttpServer:
    """An address that serves MCP over streamable HTTP."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    auth: Any = field(default=None, repr=False)

    @property
    def where(self) -> str:
        return show_address(self.url)

    @asynccontextmanager
    async def open(self, report: Report, call_s: float) -> AsyncGenerator[Any]:
        from httpx2 import AsyncClient, Timeout
        from mcp.client.streamable_http import streamable_http_client

        hide_keys(self.url)
        # A stream is silent while a person is asked, and while nothing changes: calls have a bound of their own.
        # The package follows redirects itself, and never to another origin, so the headers go nowhere else.
        client = AsyncClient(
            headers=dict(self.headers),
            auth=make_patient(self.auth),
            timeout=Timeout(30.0, read=None),
            event_hooks={"request": [_bound_farewell]},
        )
        # The package's own bound is a tenth of ours.
        transport = streamable_http_client(self.url, http_client=client, max_sse_event_size=MESSAGE_BYTES_AT_MOST)
        async with client, transport as (read, write):
            yield _Cleaned(read, report), write


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


async def _bound_farewell(request: Any) -> None:
    """Limit the time of the request that ends a session: the run waits for it, and some servers never answer."""
    if request.method == "DELETE":
        request.extensions["timeout"] = dict(request.extensions.get("timeout", {})) | {"read": FAREWELL_S}


class _OneLine(logging.Filter):
    """Turns the traceback that `mcp` logs for each line that isn't a message into one warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and "parse JSONRPC" in record.getMessage():
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg = NOISE
            record.args = ()
        return True


_one_line = _OneLine()


class _Cleaned:
    """A transport's read stream whose listings have no tool that can't be read.

    It runs in the reader's own task, since another task between the two would make each call a tenth slower.
    """

    def __init__(self, inner: Any, report: Report) -> None:
        self._inner = inner
        self._report = report
        self._version = MODERN

    @property
    def last_context(self) -> Any:
        """What the transport says of the sender, where it does."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Any:
        return await self._clean(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._clean(await self._inner.__anext__())

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._inner.__aexit__(*error)

    async def _clean(self, message: Any) -> Any:
        result: object = None if isinstance(message, Exception) else getattr(message.message, "result", None)
        if isinstance(result, dict):
            answer = cast(dict[str, JSON], result)
            if "serverInfo" in answer:
                self._version = str(answer.get("protocolVersion", self._version))  # what a handshake agreed on
            elif "tools" in answer:
                await clean_listing(answer, self._version, self._report)
        return message


async def clean_listing(result: dict[str, JSON], version: str, report: Report) -> None:
    """Mend the tools of a listing, in place, and leave out those that can't be read.

    An input schema without `type` is one of an object (the specification requires it, servers forget it).
    """
    tools = result.get("tools")
    if not isinstance(tools, list):
        return
    rest = {name: value for name, value in result.items() if name != "tools"}
    kept: list[JSON] = []
    for position, tool in enumerate(tools):
        if position % AT_A_TIME == AT_A_TIME - 1:
            await asyncio.sleep(0)
        if isinstance(tool, dict):
            schema = tool.get("inputSchema")
            if isinstance(schema, dict):
                schema.setdefault("type", "object")
            output = tool.get("outputSchema")
            if isinstance(output, dict) and not output:
                del tool["outputSchema"]
        problem = _find_problem(tool, rest, version)
        if problem is not None and isinstance(tool, dict) and "outputSchema" in tool:
            # What it gives can be used without its promise, such as a list before 2026-07-28.
            promise = tool.pop("outputSchema")
            again = _find_problem(tool, rest, version)
            if again is None:
                problem = None
            else:
                tool["outputSchema"] = promise
        if problem is None:
            kept.append(tool)
        else:
            name = tool.get("name") if isinstance(tool, dict) else None
            report(f"tool {name!r} is left out: its definition can't be read ({problem})")
    tools[:] = kept


def _find_problem(tool: JSON, rest: Mapping[str, JSON], version: str) -> str | None:
    """Find the problem of one tool for which the package would refuse the whole listing."""
    from mcp_types.methods import parse_server_result
    from pydantic import ValidationError

    try:
        parse_server_result("tools/list", version, {**rest, "tools": [tool]})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = [str(step) for step in first["loc"]]
        if "tools" not in place:
            return None  # the listing itself is wrong, and the package says so
        where = ".".join(step for step in place if step != "tools" and not step.isdigit())
        return f"{where}: {first['msg']}"
    except (KeyError, ValueError):
        return None  # a version that the package doesn't know: it says so itself
    return None
